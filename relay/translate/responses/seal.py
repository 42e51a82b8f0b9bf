"""What a model thought, sealed: a caller carries it from one turn to the next and cannot change it.

The Messages API wants thinking back as it was, signature and all, and the Responses API has one
field for such things, `encrypted_content`. What is in it can be read by whoever has it, as it is
the caller's own; but only what this relay has sealed for the same account is ever opened again,
so that nothing forged or foreign goes upstream. Which models may see it is decided in `replay`.

A seal is `rly1.` and the base64url of a tag of 16 octets (keyed BLAKE2b, RFC 7693, over owner,
kind and content), a letter for the kind, and the content, a JSON object.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

import msgspec

from relay.translate.invalid import UNREADABLE
from relay.translate.raw_json import NOTHING, Octets, kind
from relay.translate.request.thinking_replay import Thought

_BEGINNING: Final = b'"rly1.'  # the number is the version's
_TAG: Final = 16  # octets
_THOUGHT: Final = b"t"
_SUMMARY: Final = b"s"


class _Content(msgspec.Struct, frozen=True):
    family: str = ""
    text: msgspec.Raw = NOTHING
    signature: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING


_content = msgspec.json.Decoder(_Content).decode


class Seal:
    """Seals for one account, and opens what was sealed for it."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes, owner: str) -> None:
        """`key` is the relay's own, any 32 octets; `owner` the account's id."""
        self._key = blake2b(owner.encode(), key=key, digest_size=32).digest()

    def thought(self, family: str, text: Octets, signature: Octets) -> bytes:
        """A thinking block's text and signature, JSON strings both, as a sealed JSON string."""
        return self._close(_THOUGHT, family, (b',"text":', text, b',"signature":', signature))

    def redacted(self, family: str, data: Octets) -> bytes:
        """The data of a redacted thinking block, a JSON string."""
        return self._close(_THOUGHT, family, (b',"data":', data))

    def summary(self, text: Octets) -> bytes:
        """What stands for a conversation that was compacted, a JSON string."""
        return self._close(_SUMMARY, "", (b',"text":', text))

    def opened(self, raw: msgspec.Raw) -> Thought | None:
        """The thought in a sealed JSON string; None: it is none of this relay's and account's."""
        found = self._open(_THOUGHT, raw)
        if found is None:
            return None
        return Thought(found.family, found.text, found.signature, found.data)

    def opened_summary(self, raw: msgspec.Raw) -> msgspec.Raw | None:
        """The text of a sealed summary, a JSON string; None: it is none."""
        found = self._open(_SUMMARY, raw)
        return found.text if found is not None and kind(found.text) == '"' else None

    def _close(self, letter: bytes, family: str, rest: tuple[Octets, ...]) -> bytes:
        told = b'{"family":%b' % msgspec.json.encode(family)
        content = b"".join((letter, told, *rest, b"}"))
        return b'%b%b"' % (_BEGINNING, urlsafe_b64encode(self._tag(content) + content))

    def _open(self, letter: bytes, raw: msgspec.Raw) -> _Content | None:
        sealed = bytes(raw)
        if not sealed.startswith(_BEGINNING):
            return None
        try:
            octets = urlsafe_b64decode(sealed[len(_BEGINNING) : -1])
            content = octets[_TAG:]
            if not compare_digest(octets[:_TAG], self._tag(content)) or content[:1] != letter:
                return None
            return _content(content[1:])
        except (*UNREADABLE, binascii.Error):
            return None

    def _tag(self, content: bytes) -> bytes:
        return blake2b(content, key=self._key, digest_size=_TAG).digest()
