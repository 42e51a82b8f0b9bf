"""A body of another size than the one in the report would make its figure a wrong one."""

import orjson
import pytest

from bench.bodies import octets
from bench.dialects import CHAT, MESSAGES, RESPONSES, Dialect

_DIALECTS = pytest.mark.parametrize(
    "dialect", [MESSAGES, CHAT, RESPONSES], ids=lambda dialect: dialect.name
)


@pytest.mark.parametrize(
    ("text", "size"), [("1000", 1000), ("1k", 1000), ("300K", 300_000), ("1m", 1_000_000)]
)
def test_a_size_is_read_in_octets(text: str, size: int) -> None:
    assert octets(text) == size


@pytest.mark.parametrize("text", ["", "0", "k", "1g", "-1", "1.5k", "1 k", "1kk"])
def test_a_malformed_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        octets(text)


@_DIALECTS
@pytest.mark.parametrize("size", [1000, 1001, 2500, 4000, 9999, 100_000, 300_000, 1_000_000])
def test_a_body_has_the_wanted_size_to_the_octet(dialect: Dialect, size: int) -> None:
    request = dialect.request(1, "key", "tokens=1", stream=True, body_size=size)
    head, _, body = request.partition(b"\r\n\r\n")
    assert len(body) == size
    assert b"Content-Length: %d" % size in head
    assert orjson.loads(body)["stream"] is True


@_DIALECTS
def test_a_large_body_is_a_conversation_of_two(dialect: Dialect) -> None:
    body = dialect.request(1, "key", "", stream=True, body_size=100_000).partition(b"\r\n\r\n")[2]
    document = orjson.loads(body)
    turns = document.get("messages") or document["input"]
    roles = [turn["role"] for turn in turns if turn["role"] != "system"]
    assert len(roles) > 20
    assert set(roles[0::2]) == {"user"}
    assert set(roles[1::2]) == {"assistant"}
    assert roles[-1] == "user"


@_DIALECTS
def test_a_body_smaller_than_the_request_itself_is_refused(dialect: Dialect) -> None:
    with pytest.raises(ValueError, match="at least"):
        dialect.request(1, "key", "", stream=True, body_size=100)
