"""Finds what a request body uses that costs more than its text: searches, files, modes of service.

Decides by octets and by top-level members, without building the body's tree. No spelling hides a
feature: letters that are written as escapes are read, capitals count as small letters, also those
outside ASCII, and a member that is given twice counts as used. Must not know plans or prices.
"""

import re
from typing import Any, Final

import msgspec

from relay.translate.messages.features_fields import FeatureFields
from relay.translate.pacing import paced
from relay.translate.raw_json import count, find, lower

# Members that change what a request costs, and their values that do not.
_MEMBERS: Final[dict[str, tuple[str, tuple[object, ...]]]] = {
    "speed": ("fast", (None, "standard")),
    "inference_geo": ("inference_geo", (None, "global")),
    "service_tier": ("service_tier", (None, "auto", "standard_only", "standard", "default")),
    "thread": ("threads", (None,)),
    "container": ("containers", (None,)),
    "mcp_servers": ("mcp", (None, [])),
    "fallbacks": ("fallbacks", (None, [])),
    "compaction": ("compaction", (None,)),
}
_CHAT_SEARCH: Final = "web_search_options"
_TOOLS: Final = (b'"web_search', b'"web_fetch', b'"code_execution', b'"advisor', b'"compact_')
_TOOL: Final = re.compile(
    rb'"type"[ \t\r\n]*:[ \t\r\n]*"(?P<name>web_search|web_fetch|code_execution|advisor|compact)'
    rb'(?!_tool_result)[^"]*"'
)
_TOOL_FEATURES: Final = {"compact": "compaction"}
_FILE: Final = re.compile(rb'"file_id"[ \t\r\n]*:[ \t\r\n]*"')
_ONE_HOUR: Final = re.compile(rb'"ttl"[ \t\r\n]*:[ \t\r\n]*"1h"')
# Content that is fetched, unpacked or rendered: its tokens have nothing to do with its octets.
_UNBOUNDED_CONTENT: Final = (
    b'"url"', b'"file_url"', b'"file_id"', b'"file"', b'"file_data"', b'"input_file"',
    b'"document"', b'"container_upload"',
)  # fmt: skip
_LINKED_IMAGE: Final = re.compile(rb'_url"[ \t\r\n]*:[ \t\r\n]*"(?!data:)')
_IMAGES: Final = (b'"image"', b'"input_image"', b'"image_url"')
# Features by which one request may fill the context several times.
_REPEATED: Final = frozenset(
    {
        "web_search", "web_fetch", "code_execution", "advisor", "mcp", "containers", "threads",
        "fallbacks", "compaction",
    }
)  # fmt: skip
_LONG_CONTEXT_BETA: Final = b"context-1m"
_LONG_CONTEXT_OCTETS: Final = 4 * 200_000
# No JSON writer escapes letters, digits or "_" of ASCII.
_ESCAPED_WORD: Final = re.compile(
    rb"\\u00(?:3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a])"  # its beginning is found quickly
)
_ESCAPE: Final = re.compile(rb"\\(?:u00([2-7][0-9a-f])|.)", re.DOTALL)
# Other capitals of ASCII letters, as an escape and as UTF-8. Parsers that ignore case read them:
# Go's encoding/json U+017F and U+212A (Unicode, CaseFolding.txt), Java's equalsIgnoreCase all.
_FOREIGN_LETTERS: Final = tuple(
    (b"\\u%04x" % ord(capital), capital.encode(), letter)
    for capital, letter in (("\u017f", b"s"), ("\u212a", b"k"), ("\u0130", b"i"), ("\u0131", b"i"))
)
_MAX_BACKSLASHES: Final = 64  # in a row; more count as an even number
_MAX_VALUE: Final = 64  # octets
_MAX_ESCAPES: Final = 4_000  # looked at and undone one by one, in about 3 ms


_decode_members: Final = msgspec.json.Decoder(FeatureFields).decode


class Features:
    """What one body uses.

    `used` maps each feature to the field that asks for it. `escaped`: letters are written as
    escapes. `fills_context`: its prompt may be as long as the context, whatever its octets.
    `repeated`: it may fill the context several times. `images`: how many it has at most.
    """

    __slots__ = ("escaped", "fills_context", "images", "used")

    def __init__(self, body: bytes, betas: bytes = b"", *, translated: bool = False) -> None:
        """`betas`: the field `anthropic-beta`; `translated`: of a dialect that is written anew,
        where only members count that the translation knows."""
        text = lower(body)
        self.used: dict[str, str] = {}
        self.escaped = _has_escaped_words(text)
        unreadable = False  # taken for using everything
        if self.escaped:
            unreadable = text.count(b"\\") > _MAX_ESCAPES
            text = text if unreadable else lower(_ESCAPE.sub(_unescaped, text))
        if b"\\u" in text or not text.isascii():
            text = _in_ascii_letters(text)
        if not self._find_members(text, translated):
            unreadable = True
        if any(find(text, word) >= 0 for word in _TOOLS):
            for match in paced(_TOOL.finditer(text)):
                name = match["name"].decode()
                self.used.setdefault(_TOOL_FEATURES.get(name, name), "tools")
        if find(text, b'"file_id"') >= 0 and _FILE.search(text) is not None:
            self.used["files"] = "file_id"
        if find(text, b'"ttl"') >= 0 and _ONE_HOUR.search(text) is not None:
            self.used["1h_cache"] = "cache_control.ttl"
        if _LONG_CONTEXT_BETA in betas.lower():
            self.used["long_context"] = "anthropic-beta"
        elif len(body) > _LONG_CONTEXT_OCTETS:
            self.used["long_context"] = "messages"
        if unreadable:
            self.used |= dict.fromkeys(FEATURES, "escaped letters")
        self.fills_context = (
            self.escaped
            or self.repeated
            or any(find(text, word) >= 0 for word in _UNBOUNDED_CONTENT)
            or (find(text, b'_url"') >= 0 and _LINKED_IMAGE.search(text) is not None)
        )
        self.images = sum([count(text, word) for word in _IMAGES])

    @property
    def repeated(self) -> bool:
        """See the class."""
        return self.escaped or not _REPEATED.isdisjoint(self.used)

    def _find_members(self, text: bytes, translated: bool) -> bool:
        """Note the members that the body uses; whether it could be read."""
        try:
            members = _decode_members(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return translated  # the kept turns of its conversation follow the body
        if translated:
            if bytes(members.web_search_options) not in (b"", b"null"):
                self.used["web_search"] = _CHAT_SEARCH
            return True
        for name, (feature, harmless) in _MEMBERS.items():
            raw: msgspec.Raw = getattr(members, name)
            if not raw:
                continue
            if _value(raw) not in harmless or text.count(b'"%b"' % name.encode()) > 1:
                self.used[feature] = name
        return True


FEATURES: Final = (
    *[feature for feature, _ in _MEMBERS.values()],
    "web_search", "web_fetch", "code_execution", "advisor", "files", "1h_cache", "long_context",
)  # fmt: skip


def _value(raw: msgspec.Raw) -> Any:
    """A short value, decoded; a long one is no default of anything."""
    octets = bytes(raw)
    try:
        return msgspec.json.decode(octets) if len(octets) <= _MAX_VALUE else ...
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ...


def _has_escaped_words(text: bytes) -> bool:
    """Whether a letter, a digit or "_" of ASCII is written as an escape.

    A text may have the same octets behind an escaped backslash. So many of these that looking at
    each would take long count as escapes.
    """
    if b"\\u00" not in text:
        return False
    for number, match in enumerate(_ESCAPED_WORD.finditer(text)):
        start = match.start()
        before = text[max(0, start - _MAX_BACKSLASHES) : start]
        backslashes = len(before) - len(before.rstrip(b"\\"))
        if backslashes % 2 == 0 or number == _MAX_ESCAPES:
            return True
    return False


def _unescaped(match: re.Match[bytes]) -> bytes:
    """A letter for its escape; quotes and backslashes stay as they are."""
    code = match[1]
    if code is None:
        return match[0]
    letter = bytes([int(code, 16)])
    return match[0] if letter in b'"\\' else letter


def _in_ascii_letters(text: bytes) -> bytes:
    """A body in small letters, those of ASCII for all their other capitals.

    An escaped backslash becomes two slashes: a letter behind it is no escape.
    """
    if b"\\u" in text:
        text = text.replace(b"\\\\", b"//")
        for escape, _, letter in _FOREIGN_LETTERS:
            text = text.replace(escape, letter)
    if not text.isascii():
        for _, octets, letter in _FOREIGN_LETTERS:
            text = text.replace(octets, letter)
    return text
