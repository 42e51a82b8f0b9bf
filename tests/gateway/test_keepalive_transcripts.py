"""Keep-alive as transcripts: which ping or comment is written when, in each dialect.

A stream starts after 8 seconds of silence, and gets a keep-alive after 10 more; deadlines are
checked every quarter of a second.
"""

import pytest

from tests.gateway.playbook import check
from tests.pool.transcript import Options

SINGLE: Options = {"one": {}}
SHORT: Options = {"one": {"timeouts": {"first_byte": 15, "silence": 15}}}
PAIR: Options = {"one": {}, "two": {}}

MESSAGES: dict[str, tuple[Options, str]] = {
    "silence-before-the-head": (
        SINGLE,
        """
        caller asks for a stream  → request to one#1
        clock +8
        clock +0.25               → 200, ping
        clock +9.75
        clock +0.5                → ping
        clock +20.5               → ping ×2
        one#1 head opening        # held back until there is content
        clock +10.25              → ping
        one#1 text                → message_start, content_block_start, ping, text
        one#1 stop                → content_block_stop, message_delta, message_stop, end
        clock +50
        """,
    ),
    "silence-after-content": (
        SINGLE,
        """
        caller asks for a stream  → request to one#1
        one#1 head opening text   → 200, message_start, content_block_start, ping, text
        clock +10
        clock +0.25               → ping
        one#1 text                → text
        clock +9
        one#1 text                → text
        clock +9                  # each event puts the next ping off
        clock +1.25               → ping
        one#1 stop                → content_block_stop, message_delta, message_stop, end
        """,
    ),
    "an-upstreams-own-ping": (
        SINGLE,
        """
        caller asks for a stream  → request to one#1
        one#1 head opening text   → 200, message_start, content_block_start, ping, text
        clock +9
        one#1 ping                → ping
        clock +9
        one#1 ping                → ping
        clock +9
        """,
    ),
    "no-ping-within-an-event": (
        SINGLE,
        """
        caller asks for a stream  → request to one#1
        one#1 head opening text   → 200, message_start, content_block_start, ping, text
        one#1 half-text           → …
        clock +30
        one#1 rest-of-text        → text
        clock +10.25              → ping
        """,
    ),
    "a-slow-caller": (
        SINGLE,
        """
        caller asks for a stream  → request to one#1
        one#1 head opening text   → 200, message_start, content_block_start, ping, text
        caller pauses
        clock +30                 # it has enough to read
        caller resumes
        clock +10.5               → ping
        """,
    ),
    "a-stream-that-is-never-silent": (
        SINGLE,
        """
        caller asks for a stream  → request to one#1
        clock +7
        one#1 head opening text   → 200, message_start, content_block_start, ping, text
        clock +7
        one#1 text                → text
        clock +7
        one#1 stop                → content_block_stop, message_delta, message_stop, end
        """,
    ),
    "a-failure-in-the-grace-has-its-status": (
        SINGLE,
        """
        caller asks for a stream  → request to one#1
        clock +8
        one#1 529                 → 529, upstream_529
        """,
    ),
    "a-failure-after-the-head-is-an-event": (
        SINGLE,
        """
        caller asks for a stream  → request to one#1
        clock +8.25               → 200, ping
        one#1 529                 → error upstream_529, cut
        """,
    ),
    "another-upstream-answers-after-the-head": (
        PAIR,
        """
        caller asks for a stream  → request to one#1
        clock +8.25               → 200, ping
        one#1 closes              → one#1 closed, request to two#1
        clock +10.25              → ping
        two#1 head opening text   → message_start, content_block_start, ping, text
        clock +10.25              → ping
        """,
    ),
    "the-upstreams-time-is-up": (
        SHORT,
        """
        caller asks for a stream  → request to one#1
        clock +8.25               → 200, ping
        clock +7                  → one#1 closed, error api_error, cut, own probe to one#2
        """,
    ),
    "the-upstream-falls-silent": (
        SHORT,
        """
        caller asks for a stream  → request to one#1
        one#1 head opening text   → 200, message_start, content_block_start, ping, text
        clock +10.25              → ping
        clock +5                  → error api_error, cut, one#1 closed, own probe to one#2
        """,
    ),
    "a-document-after-the-head": (
        SINGLE,
        """
        caller asks for a stream  → request to one#1
        clock +8.25               → 200, ping
        one#1 document            → EVENTS, end
        """.replace(
            "EVENTS",
            "message_start, content_block_start, text, content_block_stop, message_delta, "
            "message_stop",
        ),
    ),
    "a-document-is-no-stream": (
        SINGLE,
        """
        caller asks for a document → request to one#1
        clock +50
        one#1 document             → 200, document
        """,
    ),
    "nor-is-a-count": (
        SINGLE,
        """
        caller asks for a count    → request to one#1
        clock +50
        one#1 count                → 200, document
        """,
    ),
    "a-caller-that-shuts-is-probed": (
        SINGLE,
        """
        caller asks for a stream  → request to one#1
        caller shuts
        clock +0.25               → 100
        clock +8                  → 100 ×7, 200, ping
        clock +9                  → probe
        one#1 head opening text   → message_start, content_block_start, ping, text
        """,
    ),
    "a-caller-that-leaves-ends-it": (
        SINGLE,
        """
        caller asks for a stream  → request to one#1
        clock +8.25               → 200, ping
        caller leaves             → one#1 closed
        clock +50
        """,
    ),
}

CHAT: dict[str, tuple[Options, str]] = {
    "silence-before-the-head": (
        SINGLE,
        """
        caller asks for a chat    → request to one#1
        clock +8.25               → 200, comment
        clock +10.25              → comment
        one#1 head opening text   → chunk ×2
        clock +10.25              → comment
        one#1 stop                → chunk, DONE, end
        clock +50
        """,
    ),
    "an-upstreams-own-ping-is-a-comment": (
        SINGLE,
        """
        caller asks for a chat    → request to one#1
        one#1 head opening text   → 200, chunk ×2
        clock +9
        one#1 ping                → comment
        clock +9
        clock +1.25               → comment
        """,
    ),
    "an-event-that-comes-in-parts": (
        SINGLE,
        """
        caller asks for a chat    → request to one#1
        one#1 head opening text   → 200, chunk ×2
        one#1 half-text           # only complete events are translated
        clock +10.25              → comment
        one#1 rest-of-text        → chunk
        """,
    ),
    "a-failure-in-the-grace-has-its-status": (
        SINGLE,
        """
        caller asks for a chat    → request to one#1
        clock +8
        one#1 400                 → 400, invalid_request_error
        """,
    ),
    "a-failure-after-the-head-is-an-event": (
        SINGLE,
        """
        caller asks for a chat    → request to one#1
        clock +8.25               → 200, comment
        one#1 529                 → error server_error, cut
        """,
    ),
    "the-upstream-falls-silent": (
        SHORT,
        """
        caller asks for a chat    → request to one#1
        one#1 head opening text   → 200, chunk ×2
        clock +10.25              → comment
        clock +5                  → error server_error, cut, one#1 closed, own probe to one#2
        """,
    ),
}

OPENED = "response.output_item.added, response.content_part.added, response.output_text.delta"
RESPONSES: dict[str, tuple[Options, str]] = {
    "silence-before-the-head": (
        SINGLE,
        f"""
        caller asks for a response → request to one#1
        clock +8.25                → 200, response.created, response.in_progress
        clock +10.25               → response.in_progress
        one#1 head opening text    → {OPENED}
        clock +10.25               → response.in_progress
        """,
    ),
    "silence-after-content": (
        SINGLE,
        f"""
        caller asks for a response → request to one#1
        one#1 head opening text    → 200, response.created, response.in_progress, {OPENED}
        clock +10.25               → response.in_progress
        one#1 text                 → response.output_text.delta
        """,
    ),
    "a-failure-in-the-grace-has-its-status": (
        SINGLE,
        """
        caller asks for a response → request to one#1
        clock +8
        one#1 400                  → 400, invalid_request_error
        """,
    ),
    "a-failure-after-the-head-ends-the-stream": (
        SINGLE,
        """
        caller asks for a response → request to one#1
        clock +8.25                → 200, response.created, response.in_progress
        one#1 closes               → one#1 closed, response.failed server_error, end
        clock +50
        """,
    ),
    "another-upstream-answers-after-the-head": (
        PAIR,
        f"""
        caller asks for a response → request to one#1
        clock +8.25                → 200, response.created, response.in_progress
        one#1 529                  → request to two#1
        two#1 head opening text    → {OPENED}
        """,
    ),
}


@pytest.mark.parametrize(("upstreams", "transcript"), MESSAGES.values(), ids=MESSAGES)
def test_messages_streams_get_pings(upstreams: Options, transcript: str) -> None:
    check(transcript, upstreams)


@pytest.mark.parametrize(("upstreams", "transcript"), CHAT.values(), ids=CHAT)
def test_chat_streams_get_comments(upstreams: Options, transcript: str) -> None:
    check(transcript, upstreams)


@pytest.mark.parametrize(("upstreams", "transcript"), RESPONSES.values(), ids=RESPONSES)
def test_responses_streams_get_progress_events(upstreams: Options, transcript: str) -> None:
    check(transcript, upstreams)
