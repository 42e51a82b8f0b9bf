"""Translates images and documents into blocks of the Messages API.

Decides which media types and URLs are accepted. The first octets of pictures and PDFs say what they
are, since clients label them wrongly and the API refuses a wrong label. Base64 is copied out of a
`data:` URL without decoding, because it may be tens of megabytes. Must not know the dialect.
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
from relay.translate.request.fields import FileField, UrlField

# Anthropic API docs, Vision. "image/jpg" is not a media type, but clients send it.
_IMAGE_TYPES: Final = {
    b"image/jpeg": b"image/jpeg",
    b"image/jpg": b"image/jpeg",
    b"image/png": b"image/png",
    b"image/gif": b"image/gif",
    b"image/webp": b"image/webp",
}
_PDF: Final = b"application/pdf"
_SIGNATURES: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), b"image/png"),
    (re.compile(rb"\xff\xd8\xff"), b"image/jpeg"),
    (re.compile(rb"GIF8[79]a"), b"image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), b"image/webp"),
    (re.compile(rb"%PDF-"), _PDF),
)
_SIGNATURE_CHARACTERS: Final = 16  # of base64: twelve octets
_DATA_URL: Final = re.compile(
    rb'"data:([a-z0-9.+-]*+\\?/[a-z0-9.+-]*+)?(?:;(?!base64,)[^;,"\\]*+)*+(;base64)?,',
    re.IGNORECASE,
)
_PERCENT: Final = re.compile(rb"%")
# The characters of base64 that have another meaning in URLs (RFC 2397, RFC 4648 §4).
_PERCENT_ESCAPES: Final = (
    (b"%2B", b"+"), (b"%2b", b"+"), (b"%2F", b"/"), (b"%2f", b"/"), (b"%3D", b"="), (b"%3d", b"="),
)  # fmt: skip
_HTTP_URL: Final = re.compile(rb'"https?:\\?/\\?/[^\\"]', re.IGNORECASE)
_CHARACTERS_PER_STEP: Final = 16 * 1024
_MAX_TEXT_OCTETS: Final = 12 * 1024 * 1024  # of base64: twice a million tokens
_BASE64_HEAD: Final = b'{"type":"%b","source":{"type":"base64","media_type":"%b","data":"'
_IMAGE_URL_HEAD: Final = b'{"type":"image","source":{"type":"url","url":'
_DOCUMENT_URL_HEAD: Final = b'{"type":"document","source":{"type":"url","url":'
_TEXT_HEAD: Final = b'{"type":"document","source":{"type":"text","media_type":"text/plain","data":'


_NO_PICTURE: Final = "a data: URL must be base64 of a JPEG, PNG, GIF or WebP image"
_NO_FILE: Final = "it must be a data: URL with a PDF or a text in base64"


_decode_url: Final = msgspec.json.Decoder(UrlField).decode
_decode_file: Final = msgspec.json.Decoder(FileField).decode


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
        if not match[2]:
            raise invalid_field(param, _NO_PICTURE)
        return _base64_image(_base64(url, match.end(), param), _media_type(match), cache, param)
    if _HTTP_URL.match(url) is None:
        raise invalid_field(
            param, "it must be an http(s) URL, or a data: URL with an image in base64"
        )
    return Block((_IMAGE_URL_HEAD, url, b"}"), cache)


def base64_image(data: msgspec.Raw, media_type: str, cache: msgspec.Raw, param: str) -> Block:
    """The block of a picture whose base64 stands alone, a JSON string.

    Raises:
        RelayError: 400, the image at `param` is not supported.
    """
    base64 = _base64(_normalize_url(data, param), 1, param)
    return _base64_image(base64, media_type.lower().encode(), cache, param)


def _base64_image(data: memoryview, label: bytes, cache: msgspec.Raw, param: str) -> Block:
    media_type = _IMAGE_TYPES.get(_signed_type(data) or label)
    if media_type is None:
        raise invalid_field(param, _NO_PICTURE)
    return Block((_BASE64_HEAD % (b"image", media_type), data, b'"}'), cache)


def file(raw: msgspec.Raw, cache: msgspec.Raw, param: str) -> Block:
    """The block of a `file`: `{"file_data": …, "filename": …}`.

    Raises:
        RelayError: 400, the document at `param` is not supported.
    """
    document = read(_decode_file, raw, param) if raw is not NOTHING else FileField()
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
    if match is None or not match[2]:
        raise invalid_field(param, _NO_FILE)
    return _base64_file(_base64(url, match.end(), param), title, cache, param)


def base64_file(data: msgspec.Raw, title: msgspec.Raw, cache: msgspec.Raw, param: str) -> Block:
    """The block of a file whose base64 stands alone, a JSON string; its title may be absent.

    Raises:
        RelayError: 400, the file at `param` is not supported.
    """
    titles = (b',"title":', title) if is_given(title) else ()
    return _base64_file(_base64(_normalize_url(data, param), 1, param), titles, cache, param)


def _base64_file(
    data: memoryview, title: tuple[Octets, ...], cache: msgspec.Raw, param: str
) -> Block:
    """A PDF or a picture by its first octets; everything else must be text."""
    media_type = _signed_type(data)
    if media_type == _PDF:
        return Block((_BASE64_HEAD % (b"document", _PDF), data, b'"}', *title), cache)
    if media_type:
        return Block((_BASE64_HEAD % (b"image", media_type), data, b'"}'), cache)
    return Block((_TEXT_HEAD, _text_document(data, param), b"}", *title), cache)


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
    return (match[1] or b"").replace(b"\\", b"").lower()


def _signed_type(data: memoryview) -> bytes:
    """The media type that the first octets of base64 show; empty if they show none."""
    # A slash may be escaped, so twice as many octets are looked at.
    start = bytes(data[: 2 * _SIGNATURE_CHARACTERS]).replace(b"\\", b"")[:_SIGNATURE_CHARACTERS]
    try:
        octets = binascii.a2b_base64(start)
    except ValueError:
        return b""
    return next((name for pattern, name in _SIGNATURES if pattern.match(octets)), b"")


def _base64(url: Octets, start: int, param: str) -> memoryview:
    """The base64 within a JSON string, without percent-encoding."""
    data = memoryview(url)[start:-1]
    if not data:
        raise invalid_field(param, "there is nothing in it")
    if _PERCENT.search(data) is None:
        return data
    octets = bytes(data)
    for escape, character in _PERCENT_ESCAPES:
        octets = octets.replace(escape, character)
    return memoryview(octets)


def _text_document(data: memoryview, param: str) -> bytes:
    if len(data) > _MAX_TEXT_OCTETS:
        raise invalid_field(param, "it is longer than any model can read")
    try:
        base64 = bytes(data).replace(b"\\/", b"/")
        text = binascii.a2b_base64(base64, strict_mode=True).decode("utf-8-sig")
    except ValueError:
        text = "\0"
    if "\0" in text:
        raise invalid_field(param, "it must be base64 of a PDF, or of text in UTF-8")
    octets = encode_string(text)
    if not has_text(octets, param):
        raise invalid_field(param, "there is nothing in it")
    return octets
