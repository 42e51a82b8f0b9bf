"""Sealed thinking, which a caller carries from one turn to the next and cannot change.

Decides how a seal is written and whether one is genuine. The Messages API needs thinking back
unchanged, with its signature; the Responses API has one field for it, `encrypted_content`. The
caller can read a seal, as its content is the caller's own. Only seals that this relay made for
the same account are opened, so that nothing forged goes upstream. Must not know which models may
see the content; `request.thinking_replay` decides that.

A seal is `rly1.` and base64url of three parts: a tag of 16 octets (keyed BLAKE2b, RFC 7693, over
owner, kind and content), a letter for the kind, and the content, a JSON object.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

import msgspec

from relay.translate.invalid import UNREADABLE
from relay.translate.raw_json import Octets, kind
from relay.translate.request.thinking_replay import Thought
from relay.translate.responses.fields import SealedContent

_PREFIX: Final = b'"rly1.'  # 1 is the format's version
_TAG_OCTETS: Final = 16
_MAX_OCTETS: Final = 4 * 1024 * 1024  # of a seal: several times the longest thinking
_THINKING_LETTER: Final = b"t"
_SUMMARY_LETTER: Final = b"s"


_decode_content: Final = msgspec.json.Decoder(SealedContent).decode


class Seal:
    """Seals and opens content for one account."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes, owner: str) -> None:
        """`key` is the relay's own, 32 octets; `owner` is the account's id."""
        self._key = blake2b(owner.encode(), key=key, digest_size=32).digest()

    def thought(self, family: str, text: Octets, signature: Octets) -> bytes:
        """Seal a thinking block's text and signature, both JSON strings, as a JSON string."""
        return self._close(
            _THINKING_LETTER, family, (b',"text":', text, b',"signature":', signature)
        )

    def redacted(self, family: str, data: Octets) -> bytes:
        """Seal the data of a redacted thinking block, a JSON string."""
        return self._close(_THINKING_LETTER, family, (b',"data":', data))

    def summary(self, text: Octets) -> bytes:
        """Seal the summary of a compacted conversation, a JSON string."""
        return self._close(_SUMMARY_LETTER, "", (b',"text":', text))

    def opened(self, raw: msgspec.Raw) -> Thought | None:
        """The thinking in a sealed JSON string; None unless sealed here for this account."""
        sealed = self._open(_THINKING_LETTER, raw)
        if sealed is None:
            return None
        return Thought(sealed.family, sealed.text, sealed.signature, sealed.data)

    def opened_summary(self, raw: msgspec.Raw) -> msgspec.Raw | None:
        """The text of a sealed summary, a JSON string; None unless sealed here for this account."""
        sealed = self._open(_SUMMARY_LETTER, raw)
        return sealed.text if sealed is not None and kind(sealed.text) == '"' else None

    def _close(self, letter: bytes, family: str, members: tuple[Octets, ...]) -> bytes:
        first = b'{"family":%b' % msgspec.json.encode(family)
        content = b"".join((letter, first, *members, b"}"))
        return b'%b%b"' % (_PREFIX, urlsafe_b64encode(self._tag(content) + content))

    def _open(self, letter: bytes, raw: msgspec.Raw) -> SealedContent | None:
        if len(memoryview(raw)) > _MAX_OCTETS:
            return None
        sealed = bytes(raw)
        if not sealed.startswith(_PREFIX):
            return None
        try:
            octets = urlsafe_b64decode(sealed[len(_PREFIX) : -1])
            content = octets[_TAG_OCTETS:]
            if (
                not compare_digest(octets[:_TAG_OCTETS], self._tag(content))
                or content[:1] != letter
            ):
                return None
            return _decode_content(content[1:])
        except (*UNREADABLE, binascii.Error):
            return None

    def _tag(self, content: bytes) -> bytes:
        return blake2b(content, key=self._key, digest_size=_TAG_OCTETS).digest()
