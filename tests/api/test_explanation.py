"""The text of an explanation, and how it reads what the log has of upstreams."""

import pytest

from relay.api.explanation import explanation
from relay.api.request_facts import Facts, Said, parse_reasons
from relay.api.request_ids import parse_request_id

ID = "req_" + "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", []),
        ("a: paused", [Said("a", "paused")]),
        ("a: 529; 7 s to go; b: cap", [Said("a", "529; 7 s to go"), Said("b", "cap")]),
        ("a: 429: limit of x; y: z", [Said("a", "429: limit of x; y: z")]),
        ("a-b: x; a: y", [Said("a-b", "x"), Said("a", "y")]),
        ("gone: 500; a: 400", [Said("gone", "500"), Said("a", "400")]),
        ("no name at all", [Said("", "no name at all")]),
    ],
)
def test_reasons_are_split_at_known_upstreams_alone(text: str, said: list[Said]) -> None:
    assert parse_reasons(text, ["a", "b", "a-b"]) == said


@pytest.mark.parametrize(
    "given",
    [
        ID,
        f"  {ID}\n",
        f"request-id: {ID}",
        f"X-Request-Id: {ID}",
        f'request-id="{ID}",',
        ID.upper().replace("REQ", "req"),
        ID.removeprefix("req_"),
        ID.replace("req_", "resp_"),
        ID.replace("req_", "chatcmpl-"),
    ],
)
def test_an_id_is_read_from_what_people_paste(given: str) -> None:
    assert parse_request_id(given) == ID


def test_no_text_of_an_upstream_moves_the_cursor() -> None:
    facts = Facts(ID, "ended", recorded=True, upstream="a", tried=[Said("a", "500\x1b[2J")])
    facts.words = "one\r\n\x1b]0;title\x07two\x9b1A\u202e\u2028three"
    text = explanation(facts)
    assert "one ?]0;title?two?1A??three" in text
    assert "500?[2J" in text
    assert all(character == "\n" or character.isprintable() for character in text)


def test_a_request_at_every_stage_has_a_text() -> None:
    for stage in ("reading", "waiting", "asking", "answering"):
        assert "In flight for " in explanation(Facts(ID, "in flight", stage, us=5))
    for outcome in ("whole", "refused: no", "cut: a reset", "caller left", "failed", "new"):
        assert "Ended: " in explanation(Facts(ID, "ended", outcome=outcome))
