"""Failing over as transcripts: elsewhere, once more at the same upstream, or give up."""

from typing import Any

import pytest

from tests.gateway.playbook import check
from tests.pool.transcript import Options

TIMES = {"timeouts": {"first_byte": 5, "silence": 5}}
PAIR: Options = {"one": TIMES, "two": TIMES}
SINGLE: Options = {"one": TIMES}

# Before content: the request, the first upstream's octets, whether its connection is closed, and
# the caller's answer if there is no other upstream.
ELSEWHERE: list[tuple[str, str, bool, str]] = [
    ("document", "401", False, "503, overloaded_error"),
    ("document", "402", False, "503, overloaded_error"),
    ("document", "403", False, "503, overloaded_error"),
    ("document", "404", False, "404, upstream_404"),
    ("document", "408", False, "502, api_error"),
    ("document", "429", False, "429, upstream_429"),
    ("document", "500", False, "500, upstream_500"),
    ("document", "503", False, "503, upstream_503"),
    ("document", "529", False, "529, upstream_529"),
    ("document", "301", True, "502, api_error"),
    ("document", "closes", True, "502, api_error"),
    ("document", "resets", False, "502, api_error"),
    ("document", "half-head closes", True, "502, api_error"),
    ("document", "garbage", True, "502, api_error"),
    ("document", "html", True, "502, api_error"),
    ("document", "half-document closes", True, "502, api_error"),
    ("stream", "529", False, "529, upstream_529"),
    ("stream", "head closes", True, "502, api_error"),
    ("stream", "head last", True, "502, api_error"),
    ("stream", "head opening closes", True, "502, api_error"),
    ("stream", "head opening last", True, "502, api_error"),
    ("stream", "head error", True, "529, overloaded_error"),
    ("stream", "head opening error", True, "529, overloaded_error"),
    ("chat", "529", False, "503, server_error"),
    ("chat", "head opening closes", True, "502, server_error"),
    ("response", "head opening error", True, "503, server_error"),
    ("count", "404", False, "404, upstream_404"),
    ("count", "500", False, "500, upstream_500"),
]

# The caller's fault, or perhaps still at work: no other upstream is asked.
FINAL: list[tuple[str, str, str]] = [
    ("document", "one#1 400", "400, upstream_400"),
    ("document", "one#1 413", "413, upstream_413"),
    ("document", "one#1 422", "422, upstream_422"),
    ("count", "one#1 400", "400, upstream_400"),
    ("document", "clock +6", "one#1 closed, 504, api_error, own probe to one#2"),
    ("stream", "clock +6", "one#1 closed, 504, api_error, own probe to one#2"),
    ("chat", "clock +6", "one#1 closed, 504, server_error, own probe to one#2"),
]

# After content: the end of the answer, with no request to another upstream.
AFTER_CONTENT: list[tuple[str, str, str]] = [
    ("stream", "one#1 closes", "error api_error, cut, one#1 closed"),
    ("stream", "one#1 resets", "error api_error, cut"),
    ("stream", "one#1 last", "error api_error, cut"),
    ("stream", "clock +6", "error api_error, cut, one#1 closed, own probe to one#2"),
    ("stream", "one#1 error", "error overloaded_error"),
    ("chat", "one#1 closes", "error server_error, cut, one#1 closed"),
    ("response", "one#1 closes", "response.failed server_error, end, one#1 closed"),
]

STORIES: dict[str, tuple[Options, str]] = {
    "an-idle-connection-closes-with-the-request": (
        PAIR,
        """
        caller asks for a document  → request to one#1
        one#1 document              → 200, document
        caller asks for a document  → request to one#1
        one#1 closes                → one#1 closed, request to one#2
        one#2 document              → 200, document
        """,
    ),
    "it-is-sent-again-once": (
        PAIR,
        """
        caller asks for a document  → request to one#1
        one#1 document              → 200, document
        caller asks for a document  → request to one#1
        one#1 resets                → request to one#2
        one#2 closes                → one#2 closed, request to two#1
        two#1 document              → 200, document
        """,
    ),
    "an-answered-request-is-not-sent-again": (
        PAIR,
        """
        caller asks for a document  → request to one#1
        one#1 document              → 200, document
        caller asks for a document  → request to one#1
        one#1 half-head closes      → one#1 closed, request to two#1
        """,
    ),
    "a-new-connection-is-not-used-again": (
        SINGLE,
        """
        caller asks for a document  → request to one#1
        one#1 closes                → one#1 closed, 502, api_error
        """,
    ),
    "a-goodbye-408-is-a-stale-connection": (
        PAIR,
        """
        caller asks for a document  → request to one#1
        one#1 document              → 200, document
        caller asks for a document  → request to one#1
        one#1 408 closes            → one#1 closed, request to one#2
        one#2 document              → 200, document
        """,
    ),
    "a-408-on-a-new-connection-is-a-failure": (
        PAIR,
        """
        caller asks for a document  → request to one#1
        one#1 408                   → request to two#1
        """,
    ),
    "a-failed-request-meets-no-stale-connection": (
        PAIR,
        """
        caller asks for a document  → request to one#1
        one#1 529                   → request to two#1
        two#1 document              → 200, document
        clock +6
        caller asks for a document  → request to two#1
        two#1 500                   → request to one#2
        """,
    ),
    "a-body-that-breaks-two-goes-to-no-third": (
        {"one": {}, "two": {}, "three": {}},
        """
        caller asks for a document  → request to one#1
        one#1 closes                → one#1 closed, request to two#1
        two#1 500                   → own probe to two#2
        two#2 count                 → two#2 closed, own probe to one#2
        one#2 count                 → one#2 closed, 502, api_error
        """,
    ),
    "two-that-are-broken-for-all-are-passed-over": (
        {"one": {}, "two": {}, "three": {}},
        """
        caller asks for a document  → request to one#1
        one#1 closes                → one#1 closed, request to two#1
        two#1 500                   → own probe to two#2
        two#2 500                   → two#2 closed, request to three#1
        three#1 document            → 200, document
        """,
    ),
    "an-idle-connection-closes-between-requests": (
        PAIR,
        """
        caller asks for a document  → request to one#1
        one#1 document              → 200, document
        one#1 closes                → one#1 closed
        caller asks for a document  → request to one#2
        """,
    ),
    "the-second-connection-is-refused": (
        PAIR,
        """
        caller asks for a document  → request to one#1
        one#1 document              → 200, document
        caller asks for a document  → request to one#1
        one refuses
        one#1 closes                → one#1 closed, request to two#1
        """,
    ),
    "a-silent-idle-connection-is-final": (
        PAIR,
        """
        caller asks for a document  → request to one#1
        one#1 document              → 200, document
        caller asks for a document  → request to one#1
        clock +6                    → one#1 closed, 504, api_error, own probe to one#2
        """,
    ),
    "connecting-fails": (
        PAIR,
        """
        one refuses
        caller asks for a document  → request to two#1
        two#1 document              → 200, document
        """,
    ),
    "the-last-error-is-the-callers": (
        PAIR,
        """
        two refuses
        caller asks for a document  → request to one#1
        one#1 529                   → 503, overloaded_error
        """,
    ),
    "each-upstream-is-tried-once": (
        PAIR,
        """
        caller asks for a document  → request to one#1
        one#1 529                   → request to two#1
        two#1 500                   → 500, upstream_500
        """,
    ),
    "at-most-three-upstreams-are-tried": (
        {"one": {}, "two": {}, "three": {}, "four": {}},
        """
        caller asks for a document  → request to one#1
        one#1 529                   → request to two#1
        two#1 closes                → two#1 closed, request to three#1
        three#1 500                 → 500, upstream_500
        """,
    ),
    "a-callers-fault-at-the-second": (
        {"one": {}, "two": {}, "three": {}},
        """
        caller asks for a document  → request to one#1
        one#1 529                   → request to two#1
        two#1 400                   → 400, upstream_400
        """,
    ),
    "counting-is-served-elsewhere": (
        PAIR,
        """
        caller asks for a count     → request to one#1
        one#1 404                   → request to two#1
        two#1 count                 → 200, document
        caller asks for a count     → request to two#1
        """,
    ),
    "a-stream-that-has-started-goes-elsewhere": (
        {"one": {}, "two": {}},
        """
        caller asks for a stream    → request to one#1
        clock +8.25                 → 200, ping
        one#1 529                   → request to two#1
        two#1 head opening text     → message_start, content_block_start, ping, text
        """,
    ),
    "a-caller-that-leaves-is-not-served": (
        PAIR,
        """
        caller asks for a document  → request to one#1
        caller leaves               → one#1 closed
        """,
    ),
    "a-caller-that-leaves-frees-its-place": (
        {"one": {"max_concurrency": 1}},
        """
        caller asks for a document  → request to one#1
        caller leaves               → one#1 closed
        caller asks for a document  → request to one#2
        """,
    ),
    "a-caller-that-leaves-a-stream": (
        PAIR,
        """
        caller asks for a stream    → request to one#1
        one#1 head opening text     → 200, message_start, content_block_start, ping, text
        caller leaves               → one#1 closed
        """,
    ),
}


def ids(rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"{row[0]}-{row[1]}".replace(" ", "-") for row in rows]


FAILING_ONE = """
        caller asks for a document  → request to one#{n}
        one#{n} closes              → one#{n} closed, request to two#{n}
        two#{n} document              → 200, document
"""
OPEN_CIRCUIT = "".join(FAILING_ONE.format(n=number) for number in (1, 2, 3))
PROBES = {
    "an-answer-closes-the-circuit": """
        one#5 count                 → one#5 closed
        caller asks for a document  → request to one#6
    """,
    "also-of-one-that-does-not-count": """
        one#5 404                   → one#5 closed
        caller asks for a document  → request to one#6
    """,
    "a-failure-does-not": """
        one#5 closes                → one#5 closed
        caller asks for a document  → request to two#3
        two#3 document              → 200, document
        clock +9
        caller asks for a document  → request to two#3
        clock +1                    → own probe to one#6
    """,
    "nor-does-an-error-of-its-own": """
        one#5 500                   → one#5 closed
        caller asks for a document  → request to two#3
    """,
    "nor-does-silence": """
        clock +6                    → one#5 closed
        caller asks for a document  → request to two#3
    """,
}


@pytest.mark.parametrize("transcript", PROBES.values(), ids=PROBES)
def test_an_open_circuit_is_probed_by_the_relay_itself(transcript: str) -> None:
    opened = f"""{OPEN_CIRCUIT}
        clock +1                    → own probe to one#4
        one#4 closes                → one#4 closed
        caller asks for a document  → request to two#3
        two#3 document              → 200, document
        clock +10                   → own probe to one#5
        caller asks for a document  → request to two#3
        two#3 document              → 200, document
    """
    check(opened + transcript, PAIR, {"sticky": "off"})


@pytest.mark.parametrize(("form", "steps", "closed", "lonely"), ELSEWHERE, ids=ids(ELSEWHERE))
def test_a_failure_before_content_leads_elsewhere(
    form: str, steps: str, closed: bool, lonely: str
) -> None:
    end = "one#1 closed, " if closed else ""
    asked = f"caller asks for a {form} → request to one#1\n"
    check(f"{asked} one#1 {steps} → {end}request to two#1", PAIR)
    check(f"{asked} one#1 {steps} → {end}{lonely}", SINGLE)


@pytest.mark.parametrize(("form", "event", "answer"), FINAL, ids=ids(FINAL))
def test_no_other_upstream_gets_a_bad_or_running_request(
    form: str, event: str, answer: str
) -> None:
    check(f"caller asks for a {form} → request to one#1\n {event} → {answer}", PAIR)


OPENED = {
    "stream": "200, message_start, content_block_start, ping, text",
    "chat": "200, chunk ×2",
    "response": "200, response.created, response.in_progress, response.output_item.added, "
    "response.content_part.added, response.output_text.delta",
}


@pytest.mark.parametrize(("form", "event", "answer"), AFTER_CONTENT, ids=ids(AFTER_CONTENT))
def test_nothing_is_retried_after_content(form: str, event: str, answer: str) -> None:
    transcript = f"""
        caller asks for a {form}    → request to one#1
        one#1 head opening text     → {OPENED[form]}
        {event}                     → {answer}
    """
    check(transcript, PAIR)


@pytest.mark.parametrize(("upstreams", "transcript"), STORIES.values(), ids=STORIES)
def test_a_request_goes_to_one_upstream_after_another(upstreams: Options, transcript: str) -> None:
    check(transcript, upstreams)
