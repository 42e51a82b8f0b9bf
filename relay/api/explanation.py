"""The facts of one request as a text for the operator: why it went where it went.

Decides the words, and which of the things that an operator would look for are not kept. Must not
know where facts come from.
"""

import re
from collections.abc import Iterator
from typing import Final

from relay.api.request_facts import Facts, Tokens, tried_last

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CHOICES: Final = {
    "only": "it is the only upstream of the route",
    "session": "its conversation is bound to this upstream, which has its prompt cache",
    "hash": "the conversation's hash leads to this upstream, on every relay of the cluster",
    "turn": "it was this upstream's turn by priority, weight and load",
}
_STAGES: Final = {
    "reading": "its body is read",
    "waiting": "it waits for an upstream",
    "asking": "an upstream has it and has not answered yet",
    "answering": "an upstream answers",
}
_RULES: Final = {
    "reported": "the answer was complete; its own usage is charged",
    "partial": "the answer was cut or of no use; charged is what it had reported, or else an "
    "estimate by the length of text and prompt",
    "left": "the caller left before the answer began; the prompt is charged, estimated by its "
    "length",
    "reserved": "the answer reported no usage; what was held is charged",
    "refunded": "nothing is charged; only limits of up to an hour count the request",
    "crashed": "the relay ended first; what was held is charged",
}
_OUTCOMES: Final = {
    "whole": "answered completely",
    "refused": "refused",
    "cut": "the answer was cut",
    "caller left": "the caller left",
    "failed": "the relay failed; its error log has a traceback with this id",
}


def explanation(facts: Facts) -> str:
    """The text, without a line end. No character of it moves the cursor of a terminal."""
    sections = (
        ("", _heading(facts)),
        ("Route", _route(facts)),
        ("Upstreams", _upstreams(facts)),
        ("Settled", _settled(facts)),
        ("Times", _times(facts)),
        ("Not kept", [f"- {line}" for line in not_kept(facts)]),
        ("Not searched", [f"- {line}" for line in facts.not_searched]),
    )
    parts = []
    for title, lines in sections:
        shown = [_printable(line) for line in lines]
        if shown:
            parts.append("\n".join([title, *("  " + line for line in shown)] if title else shown))
    return "\n\n".join([*parts, f"Found in: {', '.join(facts.found_in)}."])


def not_kept(facts: Facts) -> list[str]:
    """What nothing records, or nothing that is left."""
    lines = []
    if not facts.recorded:
        lines.append(
            "upstreams passed over and tried, the reason of the choice, waits and addresses: the "
            "database has none of it, only the access log and the latest failures do"
        )
    if facts.recorded and facts.tried and not facts.words:
        lines.append("the words of an upstream's error: memory has those of the latest failures")
    if len(facts.tried) > 1 and facts.words:
        lines.append("the words of all upstreams but the last that failed")
    if len(facts.tried) > 1 or (facts.tried and facts.upstream != tried_last(facts.tried)):
        lines.append("the reason and the time of each choice but the last")
    if facts.choice == "session":
        lines.append("which conversation bound the request")
    if facts.rule and not facts.plan:
        lines.append("the plan of that moment, and what its limits had left")
    if facts.charged is not None:
        lines.append("the prices of that moment; the cost was fixed by them")
    return lines


def _heading(facts: Facts) -> Iterator[str]:
    where = " ".join(part for part in (facts.method, facts.path) if part)
    dialect = f"({facts.dialect})" if facts.dialect else ""
    yield "  ".join(part for part in (facts.id, facts.time, where, dialect) if part)
    who = facts.user or facts.user_id or "an unknown caller"
    key = f", key {facts.key}" if facts.key else ""
    peer = f", from {facts.peer}" if facts.peer else ""
    agent = f", agent {facts.agent}" if facts.agent else ""
    yield f"By {who}{key}{peer}{agent}."
    yield _end(facts)


def _end(facts: Facts) -> str:
    if facts.state == "in flight":
        return f"In flight for {_span(facts.us or 0)}: {_STAGES[facts.stage]}."
    if facts.state == "open":
        return (
            "Admitted; its end is not written. It is in flight, here or in a process that drains, "
            "or the relay ended first: then the next start settles it."
        )
    word, _, reason = facts.outcome.partition(": ")
    status = f"status {facts.status}" if facts.status else "no answer was sent"
    after = f", after {_span(facts.us)}" if facts.us is not None else ""
    reason = f": {reason.rstrip('.')}" if reason else ""
    return f"Ended: {status}, {_OUTCOMES.get(word, facts.outcome)}{after}{reason}."


def _route(facts: Facts) -> Iterator[str]:
    if facts.route:
        names = [
            f"{one.upstream} (priority {one.priority}"
            f"{'' if one.model == facts.model else ', as ' + one.model})"
            for one in facts.route
        ]
        yield f"{facts.model} is served by: {', '.join(names)}. This is the route as it is now."
    elif facts.model:
        yield f"Asked for the model {facts.model}."
    if facts.wait_us:
        yield f"Waited {_span(facts.wait_us)} in the queue for a free upstream."
    for one in facts.passed:
        yield f"Passed over {one.upstream}: {one.why}." if one.upstream else one.why
    if facts.upstream:
        reason = _CHOICES.get(facts.choice)
        yield f"Chose {facts.upstream}{': ' + reason if reason else ''}."
    elif facts.recorded:
        yield "No upstream was chosen."


def _upstreams(facts: Facts) -> Iterator[str]:
    last = len(facts.tried)
    for number, one in enumerate(facts.tried, 1):
        yield f"{number}. {one.upstream} failed: {one.why}."
        if number == last and facts.words:
            yield f"   It said: {facts.words}"
    if not facts.upstream or facts.upstream == tried_last(facts.tried):
        return
    details = [
        f"{name} {value}"
        for name, value in (
            ("model", facts.served), ("stop reason", facts.stop), ("its id", facts.upstream_id),
        )
        if value
    ]  # fmt: skip
    yield f"{last + 1}. {facts.upstream} {_said(facts)}{''.join(f', {one}' for one in details)}."


def _said(facts: Facts) -> str:
    """What the upstream did that did not fail the request."""
    if facts.state == "in flight":
        return "answers" if facts.stage == "answering" else "has it, without an answer yet"
    if facts.outcome == "whole":
        return "answered"
    if facts.tried:  # `upstream_us` may be of another one
        return "was chosen; the request ended with it"
    return "began to answer" if facts.upstream_us else "had sent no head of an answer"


def _settled(facts: Facts) -> Iterator[str]:
    if facts.reserved is not None:
        money = f" and {_dollars(facts.held_micro)}" if facts.held_micro else ""
        yield f"Held at admission: {facts.reserved:,} tokens{money}."
    if facts.rule:
        yield f"Rule: {facts.rule}: {_RULES.get(facts.rule, 'unknown here')}."
    elif facts.state == "ended" and facts.recorded:
        yield "Nothing: it was not metered, or refused before it was admitted."
    if facts.reported is not None:
        yield f"Reported by the upstream: {_tokens(facts.reported)}."
    if facts.charged is not None and facts.charged != Tokens():
        yield f"Charged: {_tokens(facts.charged)}."
    if facts.cost_micro is not None:
        yield f"Cost at the model's prices: {_dollars(facts.cost_micro)}. {_balance(facts)}"
    if facts.plan:
        yield f"Plan: {facts.plan}."
    elif facts.plan_now:
        yield f"Plan now: {facts.plan_now}."
    for limit in facts.limits_now:
        full = f", full again at {limit.reset}" if limit.reset else ""
        yield f"Left now of {limit.limit}: {limit.remaining:,}{full}."


def _balance(facts: Facts) -> str:
    if facts.billed is None:
        return "Nothing of it was drawn from a balance."
    note = f" ({facts.billed.note})" if facts.billed.note else ""
    back = ", and given back later" if facts.billed.given_back else ""
    return f"The balance was charged {_dollars(facts.billed.charged)}{note}{back}."


def _times(facts: Facts) -> Iterator[str]:
    spans = (
        ("relay, before the first upstream", facts.relay_us),
        ("wait for an upstream", facts.wait_us),
        ("upstream, until the head of its answer", facts.upstream_us),
        ("first content of the stream", facts.first_us),
        ("so far" if facts.state == "in flight" else "in all", facts.us),
    )
    for name, span in spans:
        if span:
            yield f"{name}: {_span(span)}"


def _tokens(tokens: Tokens) -> str:
    names = ("input", "output", "cache read", "cache write")
    values = [getattr(tokens, field) for field in Tokens.__struct_fields__]
    pairs = zip(names, values, strict=True)
    return ", ".join(f"{name} {value:,}" for name, value in pairs if value is not None)


def _span(us: int) -> str:
    if us < 1_000:
        return f"{us} µs"
    return f"{us / 1000:.1f} ms" if us < 1_000_000 else f"{us / 1e6:.2f} s"


def _dollars(micro: int) -> str:
    return f"${micro / 1e6:,.6f}"


def _printable(line: str) -> str:
    return _UNPRINTABLE.sub("?", re.sub(r"[\r\n\t]+", " ", line))
