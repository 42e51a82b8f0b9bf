"""Translates images and documents into blocks of the Messages API.

Decides which media types and URLs are accepted. Base64 is copied out of a `data:` URL without
decoding, because it may be tens of megabytes. Must not know the dialect.
"""

import binascii
import re
from typing import Final

import msgspec

from relay.translate.invalid import invalid_field, read
from relay.translate.pacing import paced
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

# Anthropic API docs, Vision. "image/jpg" is not a media type, but clients send it.
_IMAGE_TYPES: Final = {
    b"image/jpeg": b"image/jpeg",
    b"image/jpg": b"image/jpeg",
    b"image/png": b"image/png",
    b"image/gif": b"image/gif",
    b"image/webp": b"image/webp",
}
_DATA_URL: Final = re.compile(
    rb'"data:([a-z0-9.+-]*+\\?/[a-z0-9.+-]*+)(?:;(?!base64,)[^;,"\\]*+)*+(;base64)?,',
    re.IGNORECASE,
)
_HTTP_URL: Final = re.compile(rb'"https?:\\?/\\?/[^\\"]', re.IGNORECASE)
_CHARACTERS_PER_STEP: Final = 16 * 1024
_MAX_TEXT_OCTETS: Final = 12 * 1024 * 1024  # of base64: twice a million tokens
_BASE64_HEAD: Final = b'{"type":"%b","source":{"type":"base64","media_type":"%b","data":"'
_IMAGE_URL_HEAD: Final = b'{"type":"image","source":{"type":"url","url":'
_DOCUMENT_URL_HEAD: Final = b'{"type":"document","source":{"type":"url","url":'
_TEXT_HEAD: Final = b'{"type":"document","source":{"type":"text","media_type":"text/plain","data":'


class _Url(msgspec.Struct, frozen=True, gc=False):
    url: msgspec.Raw = NOTHING


class _File(msgspec.Struct, frozen=True, gc=False):
    file_data: msgspec.Raw = NOTHING
    file_id: msgspec.Raw = NOTHING
    filename: msgspec.Raw = NOTHING


_decode_url: Final = msgspec.json.Decoder(_Url).decode
_decode_file: Final = msgspec.json.Decoder(_File).decode


def image(raw: msgspec.Raw, cache: msgspec.Raw, param: str) -> Block:
    """The block of an `image_url`: `{"url": …}`, or the URL alone.

    Raises:
        RelayError: 400, the image at `param` is not supported.
    """
    if kind(raw) != '"':
        raw = read(_decode_url, raw, param).url if raw is not NOTHING else raw
        param += ".url"
    url = _normalize_url(raw, param)
    if (match := _DATA_URL.match(url)) is not None:
        media_type = _IMAGE_TYPES.get(_media_type(match))
        if media_type is None or not match[2]:
            raise invalid_field(
                param, "a data: URL must be base64 of a JPEG, PNG, GIF or WebP image"
            )
        return Block(
            (_BASE64_HEAD % (b"image", media_type), _base64(url, match.end(), param), b'"}'), cache
        )
    if _HTTP_URL.match(url) is None:
        raise invalid_field(
            param, "it must be an http(s) URL, or a data: URL with an image in base64"
        )
    return Block((_IMAGE_URL_HEAD, url, b"}"), cache)


def file(raw: msgspec.Raw, cache: msgspec.Raw, param: str) -> Block:
    """The block of a `file`: `{"file_data": …, "filename": …}`.

    Raises:
        RelayError: 400, the document at `param` is not supported.
    """
    document = read(_decode_file, raw, param) if raw is not NOTHING else _File()
    if is_given(document.file_id):
        raise invalid_field(
            f"{param}.file_id", "no files are kept here; send its content as file_data"
        )
    title: tuple[Octets, ...] = ()
    if is_given(document.filename) and has_text(document.filename, f"{param}.filename"):
        title = (b',"title":', document.filename)
    param += ".file_data"
    url = _normalize_url(document.file_data, param)
    match = _DATA_URL.match(url)
    media_type = _media_type(match) if match is not None and match[2] else b""
    if match is None or media_type not in (b"application/pdf", b"text/plain"):
        raise invalid_field(param, "it must be a data: URL with a PDF or plain text in base64")
    data = _base64(url, match.end(), param)
    if media_type == b"text/plain":
        return Block((_TEXT_HEAD, _text_document(data, param), b"}", *title), cache)
    return Block((_BASE64_HEAD % (b"document", media_type), data, b'"}', *title), cache)


def linked(raw: msgspec.Raw, title: msgspec.Raw, param: str) -> Block:
    """The block of a document that the API fetches from its URL.

    Raises:
        RelayError: 400, the value at `param` is not an http(s) URL.
    """
    url = _normalize_url(raw, param)
    if _HTTP_URL.match(url) is None:
        raise invalid_field(param, "it must be an http(s) URL")
    octets: list[Octets] = [_DOCUMENT_URL_HEAD, url, b"}"]
    if is_given(title) and has_text(title, param):
        octets += (b',"title":', title)
    return Block(tuple(octets))


def native(
    name: str,
    source: msgspec.Raw,
    members: tuple[tuple[str, msgspec.Raw], ...],
    cache: msgspec.Raw,
    param: str,
) -> Block:
    """A block in the Messages API's own form, which some clients send.

    Raises:
        RelayError: 400, the block at `param` has no source.
    """
    if kind(source) != "{":
        raise invalid_field(f"{param}.source", "it must be given, as an object")
    octets: list[Octets] = [b'{"type":"%b","source":' % name.encode(), source]
    for member, value in members:
        if is_given(value):
            octets += (b',"%b":' % member.encode(), value)
    return Block(tuple(octets), cache)


def _normalize_url(raw: msgspec.Raw, param: str) -> Octets:
    """A URL without white space, and without escapes except for slashes, which PHP writes."""
    if kind(raw) == '"':
        octets = bytes(raw)
        # The API refuses base64 with line ends, which are escapes; other escapes are rare.
        if octets.count(b"\\") == octets.count(b"\\/"):
            return raw
    text = decode_string(raw, param)
    # In steps: `split` makes an object of each word, and there may be millions.
    starts = paced(range(0, len(text), _CHARACTERS_PER_STEP))
    pieces = ["".join(text[start : start + _CHARACTERS_PER_STEP].split()) for start in starts]
    return encode_string("".join(pieces))


def _media_type(match: re.Match[bytes]) -> bytes:
    return match[1].replace(b"\\", b"").lower()


def _base64(url: Octets, start: int, param: str) -> memoryview:
    data = memoryview(url)[start:-1]
    if not data:
        raise invalid_field(param, "there is nothing in it")
    return data


def _text_document(data: memoryview, param: str) -> bytes:
    if len(data) > _MAX_TEXT_OCTETS:
        raise invalid_field(param, "it is longer than any model can read")
    try:
        base64 = bytes(data).replace(b"\\/", b"/")
        text = binascii.a2b_base64(base64, strict_mode=True).decode()
    except ValueError:
        raise invalid_field(param, "it must be base64 of text in UTF-8") from None
    octets = encode_string(text)
    if not has_text(octets, param):
        raise invalid_field(param, "there is nothing in it")
    return octets
