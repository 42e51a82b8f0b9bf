"""What a person pastes to use a key: the examples of the documentation, with the key in them.

Decides which examples are shown beside a new key. Must not know pages.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from relay.config import Settings
from relay.web.manual.filling import KEY, set_up_lines

if TYPE_CHECKING:
    from relay.web.manual.edition import Edition

# The snippet, the page and the section that have it, and how many blocks of code belong to it.
_PLACES: Final = (
    ("claude_code", "claude-code", "in-the-terminal", 1),
    ("claude_file", "claude-code", "for-good", 1),
    ("codex", "agents", "codex-cli", 2),
    ("hermes", "agents", "hermes-agent", 3),
    ("opencode", "agents", "opencode", 1),
    ("anthropic", "sdks", "anthropic-sdk-for-python", 1),
    ("openai", "sdks", "openai-sdk-for-python", 1),
    ("curl", "sdks", "curl", 1),
)
_PLACE_OF_KEY: Final = "{env:RELAY_KEY}"  # in OpenCode's file


@dataclass(frozen=True, slots=True)
class Part:
    """A text to copy. `caption` is the file that it goes to, or empty."""

    caption: str
    text: str


@dataclass(frozen=True, slots=True)
class Snippet:
    """`id` finds its title in `snippets.*`."""

    id: str
    parts: tuple[Part, ...]


def snippets(edition: "Edition", settings: Settings, key: str) -> list[Snippet]:
    """All snippets, with a key. The first one sets up every client that it finds."""
    shell, power_shell = set_up_lines(settings, key)
    found = [Snippet("set_up", (Part("Linux, macOS", shell), Part("Windows", power_shell)))]
    for id, page, anchor, number in _PLACES:
        codes = [one for one in edition.pages[page].rendered.codes if one.anchor == anchor]
        parts = tuple(Part(one.caption, _with_key(one.text, key)) for one in codes[:number])
        found.append(Snippet(id, parts))
    return found


def _with_key(text: str, key: str) -> str:
    return text.rstrip("\n").replace(KEY, key).replace(_PLACE_OF_KEY, key)
