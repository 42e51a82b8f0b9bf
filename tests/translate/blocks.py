"""Random answers of the Messages API, each as events and as a document."""

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.translate.chunks import event

_PING = '{"type":"ping"}'
_SEARCH: list[dict[str, Any]] = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"q": "x"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    {"type": "news", "text": "no"},
]


@dataclass(frozen=True)
class Part:
    """One block: as it is in a document, as it starts in a stream, and its deltas."""

    block: dict[str, Any]
    start: dict[str, Any]
    deltas: list[dict[str, Any]] = field(default_factory=list)


# Few characters, so that the interesting ones come up: quotation marks, line ends, emoji.
pieces = st.lists(st.text(st.sampled_from('ab "\\\n\r/üß日🌍\x00\u2028'), max_size=6), max_size=4)
_names = st.text("abc", min_size=1, max_size=3)
_inputs = st.dictionaries(
    _names,
    st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=3)),
    max_size=2,
)


@st.composite
def _texts(draw: st.DrawFn) -> Part:
    said = draw(pieces)
    first = draw(st.sampled_from(["", "", "Hi "]))
    cited = [
        {"type": kind, "url": "https://a.example/" + str(number), "title": "T", "cited_text": "c"}
        for number, kind in enumerate(
            draw(st.lists(st.sampled_from(["web_search_result_location", "char_location"])))[:3]
        )
    ]
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": piece} for piece in said]
    for each in cited:
        at = draw(st.integers(0, len(deltas)))
        deltas.insert(at, {"type": "citations_delta", "citation": each})
    # The order in which a stream cites is that of its events.
    cited = [delta["citation"] for delta in deltas if "citation" in delta]
    block = {"type": "text", "text": first + "".join(said), "citations": cited or None}
    return Part(block, {"type": "text", "text": first}, deltas)


@st.composite
def _thoughts(draw: st.DrawFn) -> Part:
    said, signed = draw(pieces), draw(st.lists(st.sampled_from(["Eq", "+/=="]), max_size=2))
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in said]
    deltas += [{"type": "signature_delta", "signature": piece} for piece in signed]
    block = {"type": "thinking", "thinking": "".join(said), "signature": "".join(signed)}
    return Part(block, {"type": "thinking", "thinking": "", "signature": ""}, deltas)


@st.composite
def _calls(draw: st.DrawFn) -> Part:
    block = {"type": "tool_use", "id": f"toolu_{draw(_names)}", "name": draw(_names)}
    given = draw(_inputs)
    arguments = json.dumps(given, separators=(",", ":"), ensure_ascii=draw(st.booleans()))
    cut = draw(st.integers(0, len(arguments)))
    said = draw(st.sampled_from([["", arguments[:cut], arguments[cut:]], []]))
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in said]
    # Both forms must have the same octets, so the document has the arguments verbatim.
    start = {**block, "input": {} if said else Verbatim(arguments)}
    return Part({**block, "input": Verbatim(arguments)}, start, deltas)


class Verbatim(str):
    """JSON that a document contains verbatim."""


_redacted = st.sampled_from(["EncA", "EncB+/="]).map(
    lambda data: {"type": "redacted_thinking", "data": data}
)
parts = st.lists(
    st.one_of(
        _texts(),
        _thoughts(),
        _calls(),
        _redacted.map(lambda block: Part(block, block)),
        st.sampled_from(_SEARCH).map(lambda block: Part(block, block)),
    ),
    max_size=5,
)
_stops = st.sampled_from(
    ["end_turn", "tool_use", "max_tokens", "refusal", "pause_turn", "something_new", None]
)
_counts = st.fixed_dictionaries(
    {},
    optional={
        "input_tokens": st.one_of(st.none(), st.integers(1, 99)),
        "cache_read_input_tokens": st.integers(0, 99),
        "cache_creation_input_tokens": st.integers(0, 99),
        "output_tokens": st.integers(0, 99),
        "output_tokens_details": st.just({"thinking_tokens": 5}),
    },
)


def dump(value: Any, *, ascii: bool = False) -> str:
    """JSON that contains `Verbatim` values unchanged."""
    if isinstance(value, Verbatim):
        return str(value)
    if isinstance(value, dict):
        members = (f"{json.dumps(name)}:{dump(each, ascii=ascii)}" for name, each in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(dump(each, ascii=ascii) for each in value) + "]"
    return json.dumps(value, ensure_ascii=ascii)


@dataclass(frozen=True)
class Answer:
    """One answer in both forms."""

    document: bytes
    events: list[bytes]

    def __repr__(self) -> str:
        return "Answer(\n" + b"".join(self.events).decode() + ")"


def _block_events(draw: st.DrawFn, made: list[Part]) -> list[dict[str, Any]]:
    """The events of all blocks in order; consecutive calls may alternate."""
    block_events: list[dict[str, Any]] = []
    indices = list(range(len(made)))
    for calls, row in itertools.groupby(
        indices, key=lambda index: made[index].block["type"] == "tool_use"
    ):
        queues = []
        together = calls and draw(st.booleans())
        for index in row:
            start = {"type": "content_block_start", "index": index}
            queue = [{**start, "content_block": made[index].start}]
            for delta in made[index].deltas:
                queue.append({"type": "content_block_delta", "index": index, "delta": delta})
            queue.append({"type": "content_block_stop", "index": index})
            if together:
                block_events.append(queue.pop(0))
                queues.append(queue)
            else:
                block_events += queue
        while queues := [queue for queue in queues if queue]:
            block_events.append(draw(st.sampled_from(queues)).pop(0))
    return block_events


@st.composite
def cut_off(draw: st.DrawFn) -> bytes:
    """A stream that stops somewhere before its last event."""
    octets = b"".join(draw(answers()).events[:-1])
    return octets[: draw(st.integers(0, len(octets)))]


@st.composite
def interrupted(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """The events of an answer before a place within it, and those after."""
    events = draw(answers()).events
    at = draw(st.integers(0, len(events) - 1))
    return events[:at], events[at:]


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Any answer, with pings anywhere."""
    made = draw(parts)
    stop, counts = draw(_stops), draw(_counts)
    ascii, ending = draw(st.booleans()), draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    documents: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"model": "m", "content": [], "usage": {}}}
    ]
    documents += _block_events(draw, made)
    ended = {"stop_reason": stop, "stop_sequence": None}
    documents.append({"type": "message_delta", "delta": ended, "usage": counts})
    documents.append({"type": "message_stop"})
    events = []
    for each in documents:
        if draw(st.integers(0, 9)) == 0:
            events.append(event(_PING, ending))
        events.append(event(dump(each, ascii=ascii), ending))
    blocks = [part.block for part in made]
    message = {"type": "message", "content": blocks, "stop_reason": stop, "usage": counts}
    return Answer(dump(message, ascii=ascii).encode(), events)
