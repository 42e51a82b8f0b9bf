"""A content block of a Messages answer, whole or as it starts in a stream, and what is in it.

This decides how far the things that an answer says are read, whatever becomes of them. Texts are
JSON strings as octets throughout: what came from the upstream stays as it was written.
"""

import re
from typing import Final

import msgspec

from relay.translate.raw_json import NOTHING

EMPTY: Final = b'""'
MAX_CITATIONS: Final = 100  # of one block

_NO_INPUT: Final = b'"{}"'
_HALF: Final = re.compile(rb"\\(?:u[dD][89a-fA-F]|.)", re.DOTALL)
_REFUSED: Final = b'"The model declined to answer this request."'


class Block(msgspec.Struct, frozen=True, gc=False):
    """A content block of a Messages answer, or the start of one in a stream."""

    type: str = ""
    text: msgspec.Raw = NOTHING
    thinking: msgspec.Raw = NOTHING
    signature: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING
    id: msgspec.Raw = NOTHING
    name: msgspec.Raw = NOTHING
    input: msgspec.Raw = NOTHING
    citations: msgspec.Raw = NOTHING


class _Citation(msgspec.Struct, frozen=True, gc=False):
    type: str = ""
    url: msgspec.Raw = NOTHING
    title: msgspec.Raw = NOTHING


class _StopDetails(msgspec.Struct, frozen=True, gc=False):
    explanation: msgspec.Raw = NOTHING


_citation = msgspec.json.Decoder(_Citation).decode
_stop_details = msgspec.json.Decoder(_StopDetails).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


def string(raw: msgspec.Raw) -> bytes:
    """A text as it was written, quotation marks and all; EMPTY where there is none.

    Raises:
        ValueError: it is something else than a text.
    """
    octets = bytes(raw)
    if octets.startswith(b'"'):
        return octets
    if octets in (b"", b"null"):
        return EMPTY
    raise ValueError("something else where a text should be")


def count_characters(text: bytes) -> int:
    """How many Unicode characters a JSON string has.

    Of a character in two halves (`\\ud83d\\ude00`) the first counts, so that it does not matter
    whether both come in one piece.
    """
    if b"\\" not in text:
        return (len(text) if text.isascii() else len(text.decode())) - 2
    count = len(text.decode()) - 2
    for match in _HALF.finditer(text):
        escape = match[0]
        if len(escape) == 2:  # of a character, or `\u` and four digits
            count -= 5 if escape == b"\\u" else 1
        else:  # half a character: the whole escape if it is the second
            count -= 5 if escape[3:] in b"89abAB" else 6
    return count


def arguments(raw: msgspec.Raw) -> bytes:
    """The input of a tool call as a JSON string, compact, its numbers and escapes untouched.

    Where there is none it is that of an empty object, which clients can parse (litellm #5063).
    """
    octets = bytes(raw)
    if octets in (b"", b"null", EMPTY):
        return _NO_INPUT
    if octets.startswith(b'"'):  # some vendors have put it into a string already
        return octets
    return msgspec.json.encode(msgspec.json.format(octets, indent=-1).decode())


def citation(raw: msgspec.Raw) -> bytes | None:
    """The `title` and `url` of a citation of the web; None: it is of something else."""
    try:
        cited = _citation(raw)
    except msgspec.ValidationError:
        return None
    url = bytes(cited.url)
    if cited.type != "web_search_result_location" or not url.startswith(b'"'):
        return None
    return b'"title":%b,"url":%b' % (string(cited.title), url)


def citations(raw: msgspec.Raw) -> list[bytes]:
    """Those of the web among a block's citations."""
    if not bytes(raw).startswith(b"["):
        return []
    found = (citation(each) for each in _elements(raw))
    return [each for each in found if each is not None][:MAX_CITATIONS]


def refusal(stop_details: msgspec.Raw) -> bytes:
    """What to say of a refusal: the upstream's explanation, if it gave one."""
    if bytes(stop_details).startswith(b"{"):
        explanation = bytes(_stop_details(stop_details).explanation)
        if explanation.startswith(b'"') and explanation != EMPTY:
            return explanation
    return _REFUSED
