"""Random heads: canonical ones, odd ones, broken ones.

Two ways in: Hypothesis strategies, which shrink, and plain chance from a seed, which is
fast enough for thousands of cases in a second.
"""

import random

from hypothesis import strategies as st

REQUEST_LINES = (
    b"GET / HTTP/1.1",
    b"POST /v1/messages?beta=true HTTP/1.1",
    b"POST /v1/messages HTTP/1.1",
    b"HEAD /? HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET http://b:80/x?y HTTP/1.1",
    b"CONNECT b:443 HTTP/1.1",
    b"BREW /pot HTTP/1.1",
    b"GET / HTTP/1.0",
    b"GET / HTTP/1.9",
    b"GET /|[]{} HTTP/1.1",
    b"GET  / HTTP/1.1",
    b"GET /#x HTTP/1.1",
    b"get /\xc3\xa4 HTTP/1.1",
)
STATUS_LINES = (
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 ",
    b"HTTP/1.1 200",
    b"HTTP/1.1 529 Overloaded\t!",
    b"HTTP/1.1 404 Nicht gef\xc3\xbcnden",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 103 Early Hints",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 099 OK",
    b"HTTP/1.1 600 OK",
    b"HTTP/2.0 200 OK",
    b"http/1.1 200 OK",
)
NAMES = (
    b"Host",
    b"host",
    b"Content-Length",
    b"content-length",
    b"Transfer-Encoding",
    b"Connection",
    b"Expect",
    b"Upgrade",
    b"Close",
    b"Keep-Alive",
    b"TE",
    b"Trailer",
    b"Accept",
    b"accept-encoding",
    b"Content-Type",
    b"Date",
    b"Retry-After",
    b"Cookie",
    b"Set-Cookie",
    b"X-Api-Key",
    b"Authorization",
    b"X-Forwarded-For",
    b"anthropic-beta",
    b"X_Y",
    b"Transfer_Encoding",
    b"~!#$%&'*+-.^_`|",
    b"X Y",
    b"X@Y",
    b"",
)
VALUES = (
    b"a",
    b"a:80",
    b"[::1]:80",
    b"a/b",
    b"0",
    b"5",
    b"007",
    b"999999999999999",
    b"9999999999999999",
    b"99999999999999999999",
    b"999999999999999999999",
    b"+5",
    b"5, 5",
    b"chunked",
    b"Chunked",
    b"gzip, chunked",
    b"identity",
    b"close",
    b"Close",
    b"keep-alive",
    b"keep-alive, close",
    b"keep-alive, X_Y, accept",
    b"close, host",
    b"100-continue",
    b"100-Continue",
    b"*/*",
    b"Bearer rk-0000",
    b"J\xc3\xbcrgen",
    b"a \t b",
    b"",
    b"a\0b",
    b"a\x7f",
    b"a\rb",
    b"a\nb",
    b"a\r\n b",
)
LINE_FORMS = (
    *[b"%b: %b\r\n"] * 12,
    b"%b:%b\r\n",
    b"%b:  %b\r\n",
    b"%b:\t%b\r\n",
    b"%b: %b \r\n",
    b"%b: %b\t\r\n",
    b"%b : %b\r\n",
    b"%b: %b\n",
    b" %b: %b\r\n",
)
ODD_OCTETS = b'\0\t\n\x0b\x0c\r "#,/0:;?@_\x7f\x80\xa0\xff'


def _head(first: bytes, fields: list[tuple[bytes, bytes, bytes]]) -> bytes:
    return (
        first + b"\r\n" + b"".join(form % (name, value) for form, name, value in fields) + b"\r\n"
    )


def _likely_head(line: bytes, fields: list[tuple[bytes, bytes, bytes]]) -> bytes:
    return _head(line, [(b"%b: %b\r\n", b"Host", b"a"), *fields])


_fields = st.lists(
    st.tuples(st.sampled_from(LINE_FORMS), st.sampled_from(NAMES), st.sampled_from(VALUES)),
    max_size=6,
)


def _mutated(head: bytes, edits: list[tuple[float, bytes, int]]) -> bytes:
    for where, put, taken in edits:
        at = int(where * len(head))
        head = head[:at] + put + head[at + taken :]
    return head


_edits = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=2), st.integers(0, 2)), max_size=2)


def heads(first_lines: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Heads (each with its empty line), from canonical to arbitrary."""
    lines = st.sampled_from(first_lines)
    made = st.one_of(st.builds(_likely_head, lines, _fields), st.builds(_head, lines, _fields))
    return st.one_of(made, st.builds(_mutated, made, _edits), st.binary(max_size=80)).map(_ended)


def _ended(octets: bytes) -> bytes:
    """Cut off after the first empty line, which is added when there is none."""
    head, _, _ = octets.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n"


def chance_head(chance: random.Random, first_lines: tuple[bytes, ...]) -> bytes:
    """A head as by `heads`, without Hypothesis."""
    fields = [
        (chance.choice(LINE_FORMS), chance.choice(NAMES), chance.choice(VALUES))
        for _ in range(chance.randrange(5))
    ]
    make = _likely_head if chance.random() < 0.9 else _head
    head = make(chance.choice(first_lines), fields)
    while chance.random() < 0.25:
        at = chance.randrange(len(head))
        octet = bytes([chance.choice(ODD_OCTETS)])
        head = head[:at] + chance.choice((octet, b"", octet + head[at : at + 1])) + head[at + 1 :]
    return _ended(head)
