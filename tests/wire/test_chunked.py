"""Chunked bodies: the scanner that passes them on and the reader that decodes them agree.

h11 is the third opinion, on what the scanner passes on: it must decode to the reader's
payload. h11 knows no blank before an extension's `;`, which RFC 9112 §7.1.1 has, so that
blank is left out of what h11 is shown.
"""

import itertools
import random
import re
import time

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import RelayError
from relay.wire import chunked
from relay.wire.chunked import LAST_CHUNK, ChunkReader, ChunkScanner

from .corpus import Case, each, octets, read
from .feeding import Read, Refused, Waits, body, feedings, octet_by_octet, split_at

CASES = 10_000
LONG_CASES = 1_000_000
AFTER = [b"", b"GET / HTTP/1.1\r\n\r\n", b"0\r\n\r\n", b"\r\n", b"\0"]


def decoded_by_h11(coded: bytes) -> tuple[bytes, bytes] | None:
    """The payload and the octets after the body; None if the body is not complete."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded)
    payload = b""
    while True:
        event = client.next_event()
        if isinstance(event, h11.Data):
            payload += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return payload, client.trailing_data[0]
        elif event is h11.NEED_DATA:
            return None


def without_blanks(coded: bytes) -> bytes:
    return re.sub(rb"(^|\r\n)([0-9A-Fa-f]{1,8})[ \t]+;", rb"\1\2;", coded)


def judge(coded: bytes, *feedings: list[bytes]) -> str:
    """Check that both readers and h11 agree on one body in every feeding; return the outcome."""
    outcomes = [(body(ChunkScanner, pieces), body(ChunkReader, pieces)) for pieces in feedings]
    for (passed, scanned), (_, decoded) in outcomes:
        assert type(scanned) is type(decoded), "the readers disagree"
        assert type(scanned) is type(outcomes[0][0][1]), "the cut decides"
        assert coded.startswith(passed), "other octets are passed on"
    (passed, scanned), (payload, decoded) = outcomes[0]
    if isinstance(scanned, Refused):
        # which of several faults is reported may differ: all of them are a 400
        for _, result in itertools.chain.from_iterable(outcomes):
            assert isinstance(result, Refused)
            assert result.status == 400
        return "refused"
    assert all(outcome[1][0] == payload for outcome in outcomes)
    if isinstance(scanned, Waits):
        return "waits"
    assert isinstance(decoded, Read)
    assert scanned.rest == decoded.rest
    assert all(outcome == outcomes[0] for outcome in outcomes)
    end = len(coded) - len(scanned.rest)
    assert coded[end:] == scanned.rest
    assert len(passed) < end, "the last chunk is passed on"
    assert decoded_by_h11(without_blanks(passed) + LAST_CHUNK) == (payload, b"")
    assert decoded_by_h11(without_blanks(coded[:end]) + scanned.rest) == (payload, scanned.rest)
    return "read"


# --- corpora


def test_the_corpora_of_chunks_are_as_large_as_promised() -> None:
    assert len(read("chunked_refuse.txt")) >= 60


@each("chunked_refuse.txt")
@pytest.mark.parametrize("before", [b"", b"3\r\nabc\r\n"], ids=["first", "later"])
def test_a_broken_body_is_refused_alike_in_every_feeding(case: Case, before: bytes) -> None:
    for pieces in feedings(before + case.octets):
        passed, result = body(ChunkScanner, pieces)
        assert isinstance(result, Refused)
        assert result.status == 400
        assert (before + case.octets).startswith(passed)
        assert isinstance(body(ChunkReader, pieces)[1], Refused)


@each("chunked_refuse.txt")
def test_nothing_of_a_broken_size_line_or_trailer_is_passed_on(case: Case) -> None:
    chunk = b"3\r\nabc\r\n"
    passed, _ = body(ChunkScanner, octet_by_octet(chunk + case.octets))
    lines = passed.removeprefix(chunk)
    assert re.fullmatch(rb"(?s)(?:[0-9a-f]{1,8}(?:;[^\r\n\0]*)?\r\n.*)?", lines)
    assert not lines or not lines.startswith(b"0")


@each("chunked_accept.txt")
@pytest.mark.parametrize("after", AFTER, ids=repr)
def test_a_good_body_is_read_alike_in_every_feeding(case: Case, after: bytes) -> None:
    payload, result = body(ChunkReader, [case.octets + after])
    assert payload == case.expected[0]
    assert result == Read(payload, after)
    assert judge(case.octets + after, *feedings(case.octets + after)) == "read"


@each("chunked_accept.txt")
def test_a_body_is_not_done_before_its_last_octet(case: Case) -> None:
    for make in (ChunkScanner, ChunkReader):
        assert isinstance(body(make, [case.octets[:-1]])[1], Waits)
        assert isinstance(body(make, octet_by_octet(case.octets[:-1]))[1], Waits)


# --- promises to the splice


def test_the_last_chunk_is_never_passed_on() -> None:
    coded = octets(r"5;x=y\r\nhello\r\n000;z\r\nX-Sum: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    for pieces in feedings(coded, 20):
        passed, result = body(ChunkScanner, pieces)
        assert passed == b"5;x=y\r\nhello\r\n"
        assert result == Read(passed, b"GET / HTTP/1.1\r\n\r\n")


def test_a_body_can_be_ended_wherever_the_scanner_says_boundary() -> None:
    coded = octets(r"5\r\nhello\r\n1;x\r\n!\r\nc\r\n\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n")
    payload = body(ChunkReader, [coded])[0]
    for cut in range(len(coded)):
        for pieces in ([coded[:cut]], octet_by_octet(coded[:cut])):
            scanner = ChunkScanner()
            passed = b"".join(map(scanner.feed, pieces))
            ended = decoded_by_h11(passed + LAST_CHUNK) if scanner.at_boundary() else None
            if scanner.at_boundary():
                assert ended is not None
                assert payload.startswith(ended[0])
                assert ended[1] == b""
    assert ended is not None
    assert ended[0] == payload


def test_the_cache_of_size_lines_is_bounded() -> None:
    for size in range(1, 10_000):
        scanner = ChunkScanner()
        line = b"%x\r\n" % size
        assert scanner.feed(line) == line
        assert scanner.left == size + 2
        assert len(chunked._sizes) <= 4096


def test_the_cache_of_small_chunks_is_bounded() -> None:
    for size in range(1, 0xFFF, 8):
        for first in b"abc":
            octets = b"%x\r\n%b\r\n" % (size, bytes([first]) * size)
            for kind in (ChunkScanner, ChunkReader):
                reader = kind()
                passed = [reader.feed(octets) for _ in range(3)]
                assert passed == [octets if kind is ChunkScanner else octets[-size - 2 : -2]] * 3
            assert len(chunked._totals) <= 4096


@pytest.mark.parametrize("kind", [ChunkScanner, ChunkReader])
@pytest.mark.parametrize("end", [b"x\n", b"\rx", b"xx"])
def test_a_known_size_does_not_excuse_a_missing_end(
    kind: type[ChunkScanner | ChunkReader], end: bytes
) -> None:
    reader = kind()
    for _ in range(2):
        reader.feed(b"5\r\nhello\r\n")
    with pytest.raises(RelayError):
        reader.feed(b"5\r\nhello" + end)


def test_a_decoded_body_has_a_boundary_anywhere() -> None:
    reader = ChunkReader()
    for piece in octet_by_octet(b"3\r\nabc\r\n0\r\n\r\n"):
        assert reader.at_boundary()
        reader.feed(piece)
    assert reader.at_boundary()


def test_a_large_chunk_passes_in_any_pieces_without_being_held() -> None:
    scanner = ChunkScanner()
    assert scanner.feed(b"fffff\r\n") == b"fffff\r\n"
    piece = b"x" * 65535
    for _ in range(16):
        assert scanner.feed(piece) is piece
    assert not scanner.at_boundary()
    assert scanner.feed(b"x" * 15) == b"x" * 15
    assert scanner.feed(b"\r") == b""
    assert scanner.feed(b"\n") == b"\r\n"
    assert scanner.at_boundary()


def test_a_wrong_octet_after_a_chunk_is_refused_at_once() -> None:
    for make in (ChunkScanner, ChunkReader):
        assert isinstance(body(make, [b"5\r\nhelloX"])[1], Refused)
        assert isinstance(body(make, [b"5\r\nhello\r"])[1], Waits)


def test_a_held_size_line_is_bounded() -> None:
    for make in (ChunkScanner, ChunkReader):
        for octet in (b"5", b";", b" ", b"\r"):
            assert isinstance(body(make, [b"5;" + octet * 300])[1], Refused)
            assert isinstance(body(make, octet_by_octet(b"5;" + octet * 300))[1], Refused)


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_a_size_line_may_have_256_octets(over: int) -> None:
    coded = b"5;" + b"x" * (254 + over) + b"\r\nhello\r\n0\r\n\r\n"
    assert judge(coded, *feedings(coded)) == ("refused" if over > 0 else "read")


def test_no_trailer_costs_more_than_its_length_warrants() -> None:
    for make in (ChunkScanner, ChunkReader):
        before = time.thread_time()
        assert isinstance(body(make, [b"0\r\nX:" + b" " * 8100 + b"\0\r\n\r\n"])[1], Refused)
        assert time.thread_time() - before < 0.1


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_trailers_may_have_8_kib(over: int) -> None:
    coded = b"0\r\nX: " + b"y" * (8187 + over) + b"\r\n\r\n"
    edges = split_at(coded, range(8150, 8210))
    assert judge(coded, edges, *feedings(coded)) == ("refused" if over > 0 else "read")


# --- random bodies

SIZES = (*[b"%x"] * 6, b"%X", b"%08x", b"0%x", b"%09x", b"0x%x", b"+%x", b" %x", b"%x_", b"%x.")
EXTENSIONS = (
    *[b""] * 8,
    *(b";x", b";x=y", b' ;x="a b"', b"\t;", b";\xc3\xa4"),
    *(b" ", b"\t", b";\n", b";\0", b"\0", b",1", b"\r"),
)
LINE_ENDS = (*[b"\r\n"] * 24, b"\n", b"\r", b"", b"\r\r\n", b"\r\n\r\n", b"\n\r", b"X\r\n")
LAST_SIZES = (*[b"0"] * 6, b"00", b"0;x", b"00000000", b"-0", b"0x", b"0 ", b"000000000", b"")
TRAILERS = (
    *[b""] * 6,
    *(b"X: y\r\n", b"X:y \r\nZ:\r\n", b"X: \xc3\xa4\r\n"),
    *(b"Content-Length: 5\r\n", b"transfer-encoding: chunked\r\n", b"X : y\r\n", b" X: y\r\n"),
    *(b"X: y\n", b"X\r\n", b"X: \0\r\n", b"5\r\nhello\r\n"),
)


def chance_body(chance: random.Random, oddness: float) -> bytes:
    """A chunked body whose parts are each odd with a probability of `oddness`."""

    def one(of: tuple[bytes, ...]) -> bytes:
        return chance.choice(of) if chance.random() < oddness else of[0]

    parts = []
    for _ in range(chance.randrange(4)):
        data = chance.choice((b"x", b"\r\n", b"0\r\n\r\n", b"\0")) * chance.randrange(1, 5)
        size = chance.choice((0, 1, 17, 70)) if chance.random() < oddness / 8 else len(data)
        parts += [one(SIZES) % size, one(EXTENSIONS), one(LINE_ENDS), data, one(LINE_ENDS)]
    parts += [one(LAST_SIZES), one(LINE_ENDS), one(TRAILERS), one(LINE_ENDS)]
    return b"".join(parts) + chance.choice(AFTER)


def judge_by_chance(cases: range) -> dict[str, int]:
    counts = {"read": 0, "refused": 0, "waits": 0}
    for seed in cases:
        chance = random.Random(seed)
        coded = chance_body(chance, oddness=chance.choice((0, 0.2, 0.7)))
        cuts = [chance.randrange(len(coded) + 1) for _ in range(chance.randrange(4))]
        try:
            outcome = judge(coded, [coded], split_at(coded, cuts), octet_by_octet(coded))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {coded!r} cut at {cuts}") from error
        counts[outcome] += 1
    return counts


@pytest.mark.parametrize("cases", [1000, pytest.param(CASES, marks=pytest.mark.thorough)])
def test_scanner_reader_and_h11_agree_on_thousands_of_bodies(cases: int) -> None:
    counts = judge_by_chance(range(cases))
    assert min(counts["read"], counts["refused"]) > cases / 5
    assert counts["waits"] > cases / 200


@pytest.mark.long
def test_scanner_reader_and_h11_agree_on_a_million_bodies(request: pytest.FixtureRequest) -> None:
    if "long" not in request.config.option.markexpr:
        pytest.skip("takes minutes: ask for it with -m long")
    judge_by_chance(range(CASES, CASES + LONG_CASES))


_coded = st.one_of(
    st.builds(
        lambda seed, oddness: chance_body(random.Random(seed), oddness),
        st.integers(0, 2**32),
        st.sampled_from([0, 0.1, 0.5]),
    ),
    st.lists(
        st.one_of(
            st.sampled_from([b"\r\n", b"0", b"1", b"a", b";", b" ", b"\r", b"\n", b"X: y\r\n"]),
            st.binary(max_size=3),
        ),
        max_size=12,
    ).map(b"".join),
    st.binary(max_size=40).map(lambda data: b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)),
)


@given(coded=_coded, cuts=st.lists(st.integers(0, 120), max_size=6))
def test_any_octets_come_to_the_same_at_any_split(coded: bytes, cuts: list[int]) -> None:
    judge(coded, [coded], split_at(coded, cuts), octet_by_octet(coded))
