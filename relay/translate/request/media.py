"""Pictures and documents: what other dialects call them, and what the Messages API does.

Decides which kinds there are and refuses all others. Base64 is cut out of a `data:` URL as it
came and is not looked into: it may be tens of megabytes.
"""

import binascii
import re
from typing import Final

import msgspec

from relay.translate.invalid import invalid_field, read
from relay.translate.raw_json import (
    NOTHING,
    Octets,
    decode_string,
    encode_string,
    has_text,
    is_given,
    kind,
)
from relay.translate.request.block import Block

# docs: build-with-claude/vision. "image/jpg" is no media type, and often sent.
_IMAGES: Final = {
    b"image/jpeg": b"image/jpeg",
    b"image/jpg": b"image/jpeg",
    b"image/png": b"image/png",
    b"image/gif": b"image/gif",
    b"image/webp": b"image/webp",
}
_DATA: Final = re.compile(
    rb'"data:([a-z0-9.+-]*+\\?/[a-z0-9.+-]*+)(?:;(?!base64,)[^;,"\\]*+)*+(;base64)?,',
    re.IGNORECASE,
)
_HTTP: Final = re.compile(rb'"https?:\\?/\\?/[^\\"]', re.IGNORECASE)
_ESCAPE: Final = re.compile(rb"\\[^/]")
_MOST_TEXT: Final = 12 * 1024 * 1024  # octets of base64: twice what a million tokens are
_HEAD: Final = b'{"type":"%b","source":{"type":"base64","media_type":"%b","data":"'
_FROM_URL: Final = b'{"type":"image","source":{"type":"url","url":'
_DOCUMENT_FROM_URL: Final = b'{"type":"document","source":{"type":"url","url":'
_FROM_TEXT: Final = b'{"type":"document","source":{"type":"text","media_type":"text/plain","data":'


class _Url(msgspec.Struct, frozen=True, gc=False):
    url: msgspec.Raw = NOTHING


class _File(msgspec.Struct, frozen=True, gc=False):
    file_data: msgspec.Raw = NOTHING
    file_id: msgspec.Raw = NOTHING
    filename: msgspec.Raw = NOTHING


_url = msgspec.json.Decoder(_Url).decode
_file = msgspec.json.Decoder(_File).decode


def image(raw: msgspec.Raw, cache: msgspec.Raw, at: str) -> Block:
    """The block of an `image_url`: `{"url": …}`, or the URL alone.

    Raises:
        RelayError: 400, the API takes no such picture; `at` is where it is.
    """
    if kind(raw) != '"':
        raw = read(_url, raw, at).url if raw is not NOTHING else raw
        at += ".url"
    url = _clean(raw, at)
    if (match := _DATA.match(url)) is not None:
        media = _IMAGES.get(_media(match))
        if media is None or not match[2]:
            raise invalid_field(at, "a data: URL must be base64 of a JPEG, PNG, GIF or WebP image")
        return Block((_HEAD % (b"image", media), _data(url, match.end(), at), b'"}'), cache)
    if _HTTP.match(url) is None:
        raise invalid_field(at, "it must be an http(s) URL, or a data: URL with an image in base64")
    return Block((_FROM_URL, url, b"}"), cache)


def file(raw: msgspec.Raw, cache: msgspec.Raw, at: str) -> Block:
    """The block of a `file`: `{"file_data": …, "filename": …}`.

    Raises:
        RelayError: 400, the API takes no such document; `at` is where it is.
    """
    told = read(_file, raw, at) if raw is not NOTHING else _File()
    if is_given(told.file_id):
        raise invalid_field(
            f"{at}.file_id", "no files are kept here; send its content as file_data"
        )
    title: tuple[Octets, ...] = ()
    if is_given(told.filename) and has_text(told.filename, f"{at}.filename"):
        title = (b',"title":', told.filename)
    at += ".file_data"
    url = _clean(told.file_data, at)
    match = _DATA.match(url)
    media = _media(match) if match is not None and match[2] else b""
    if match is None or media not in (b"application/pdf", b"text/plain"):
        raise invalid_field(at, "it must be a data: URL with a PDF or plain text in base64")
    data = _data(url, match.end(), at)
    if media == b"text/plain":
        return Block((_FROM_TEXT, _text(data, at), b"}", *title), cache)
    return Block((_HEAD % (b"document", media), data, b'"}', *title), cache)


def linked(raw: msgspec.Raw, title: msgspec.Raw, at: str) -> Block:
    """The block of a document that the API is to fetch, by its URL.

    Raises:
        RelayError: 400, it is none; `at` is where it is.
    """
    url = _clean(raw, at)
    if _HTTP.match(url) is None:
        raise invalid_field(at, "it must be an http(s) URL")
    octets: list[Octets] = [_DOCUMENT_FROM_URL, url, b"}"]
    if is_given(title) and has_text(title, at):
        octets += (b',"title":', title)
    return Block(tuple(octets))


def native(
    name: str,
    source: msgspec.Raw,
    members: tuple[tuple[str, msgspec.Raw], ...],
    cache: msgspec.Raw,
    at: str,
) -> Block:
    """A block of the Messages API's own kind, which some clients put between the others.

    Raises:
        RelayError: 400, it has no source.
    """
    if kind(source) != "{":
        raise invalid_field(f"{at}.source", "it must be given, as an object")
    octets: list[Octets] = [b'{"type":"%b","source":' % name.encode(), source]
    for member, value in members:
        if is_given(value):
            octets += (b',"%b":' % member.encode(), value)
    return Block(tuple(octets), cache)


def _clean(raw: msgspec.Raw, at: str) -> Octets:
    """A URL without white space, and without escapes but for slashes (PHP writes them so)."""
    if kind(raw) == '"':
        octets = bytes(raw)
        # Base64 with line ends is refused by the API; all other escapes are rare.
        if b"\\" not in octets or _ESCAPE.search(octets) is None:
            return raw
    return encode_string("".join(decode_string(raw, at).split()))


def _media(match: re.Match[bytes]) -> bytes:
    return match[1].replace(b"\\", b"").lower()


def _data(url: Octets, start: int, at: str) -> memoryview:
    data = memoryview(url)[start:-1]
    if not data:
        raise invalid_field(at, "there is nothing in it")
    return data


def _text(data: memoryview, at: str) -> bytes:
    if len(data) > _MOST_TEXT:
        raise invalid_field(at, "it is longer than any model can read")
    try:
        base64 = bytes(data).replace(b"\\/", b"/")
        words = binascii.a2b_base64(base64, strict_mode=True).decode()
    except ValueError:
        raise invalid_field(at, "it must be base64 of text in UTF-8") from None
    octets = encode_string(words)
    if not has_text(octets, at):
        raise invalid_field(at, "there is nothing in it")
    return octets
