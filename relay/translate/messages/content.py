"""Reads the content blocks of a Messages answer, complete or at their start in a stream.

Decides how far a block is parsed. Must not know what a dialect makes of it. Every text is a JSON
string as octets: the upstream's spelling is kept.
"""

import json
import re
from typing import Final

import msgspec

from relay.translate.messages.content_fields import Citation, StopDetails

EMPTY: Final = b'""'
MAX_CITATIONS: Final = 100  # in one block

_BACKSLASH: Final = 0x5C  # an octet is found faster than a text of one
_EMPTY_INPUT: Final = b'"{}"'
_ESCAPE: Final = re.compile(rb"\\(?:u[dD][89a-fA-F]|.)", re.DOTALL)
_NO_EXPLANATION: Final = b'"The model declined to answer this request."'


_decode_citation: Final = msgspec.json.Decoder(Citation).decode
_decode_stop_details: Final = msgspec.json.Decoder(StopDetails).decode
_decode_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def string(raw: msgspec.Raw) -> bytes:
    """A JSON string as it came, with its quotation marks; EMPTY for null or no value.

    Raises:
        ValueError: the value is not a string.
    """
    octets = bytes(raw)
    if octets.startswith(b'"'):
        return octets
    if octets in (b"", b"null"):
        return EMPTY
    raise ValueError("a value that should be a text")


def count_characters(text: bytes) -> int:
    """The number of Unicode characters in a JSON string.

    In a surrogate pair (`\\ud83d\\ude00`) only the first half counts, so the sum is the same when
    the halves come in two pieces.
    """
    if _BACKSLASH not in text:
        return (len(text) if text.isascii() else len(text.decode())) - 2
    count = len(text.decode()) - 2
    for match in _ESCAPE.finditer(text):
        escape = match[0]
        if len(escape) == 2:  # `\n`, or the `\u` of a whole character
            count -= 5 if escape == b"\\u" else 1
        else:  # a surrogate: the second half of a pair counts nothing
            count -= 5 if escape[3:] in b"89abAB" else 6
    return count


def arguments(raw: msgspec.Raw) -> bytes:
    """The input of a tool call as a compact JSON string; numbers and escapes stay as they came.

    No input becomes an empty object, because clients parse the string (litellm #5063).
    """
    octets = bytes(raw)
    if octets in (b"", b"null", EMPTY):
        return _EMPTY_INPUT
    if octets.startswith(b'"'):  # some vendors send a string already
        return octets
    try:
        return msgspec.json.encode(msgspec.json.format(octets, indent=-1).decode())
    except msgspec.DecodeError:  # a lone surrogate
        compact = json.dumps(json.loads(octets), separators=(",", ":"))
        return json.dumps(compact).encode()


def citation(raw: msgspec.Raw) -> bytes | None:
    """The `title` and `url` members of a web citation; None for any other citation."""
    try:
        cited = _decode_citation(raw)
    except msgspec.DecodeError:
        return None
    url = bytes(cited.url)
    if cited.type != "web_search_result_location" or not url.startswith(b'"'):
        return None
    return b'"title":%b,"url":%b' % (string(cited.title), url)


def citations(raw: msgspec.Raw) -> list[bytes]:
    """The web citations of a block, at most MAX_CITATIONS."""
    if not bytes(raw).startswith(b"["):
        return []
    try:
        elements = _decode_elements(raw)
    except msgspec.DecodeError:  # a lone surrogate
        return []
    found = (citation(each) for each in elements)
    return [each for each in found if each is not None][:MAX_CITATIONS]


def refusal(stop_details: msgspec.Raw) -> bytes:
    """The text of a refusal: the upstream's explanation, else a fixed sentence."""
    if bytes(stop_details).startswith(b"{"):
        try:
            explanation = bytes(_decode_stop_details(stop_details).explanation)
        except msgspec.DecodeError:  # a lone surrogate
            return _NO_EXPLANATION
        if explanation.startswith(b'"') and explanation != EMPTY:
            return explanation
    return _NO_EXPLANATION
