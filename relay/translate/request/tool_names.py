"""The names under which a caller's tools go upstream.

Decides the function name for each tool: the Messages API has functions alone, so every kind of
tool becomes one. A call of that function becomes a call of the caller's own kind of tool.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

# `legacy_function`: of `functions` in chat completions.
ToolKind = Literal[
    "function", "legacy_function", "custom", "local_shell", "shell", "apply_patch", "tool_search"
]

_INVALID_CHARACTERS: Final = re.compile(r"[^a-zA-Z0-9_-]")
# Anthropic documentation, "How to implement tool use".
_MAX_CHARACTERS: Final = 128


@dataclass(frozen=True, slots=True)
class CallerTool:
    """A tool as its caller named it."""

    kind: ToolKind
    name: str
    namespace: str | None = None


def function_name(name: str, namespace: str | None = None) -> str:
    """The function name for a tool, the same in every turn.

    The namespace and two underscores come first. Characters that a function name cannot have
    become underscores. A name that is too long ends with a digest of the full name.
    """
    full_name = name
    if namespace:
        full_name = namespace + ("" if namespace.endswith("__") else "__") + name
    return plain_name(full_name, _MAX_CHARACTERS) or "tool"


def plain_name(text: str, most: int) -> str:
    """A text with underscores in place of the characters that names and ids cannot have.

    One with more than `most` characters ends with a digest of all of it. Only so many characters
    are looked at: 32 MiB take a second, in one call.
    """
    plain = _INVALID_CHARACTERS.sub("_", text[:most])
    if len(text) <= most:
        return plain
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{plain[: most - len(digest) - 1]}_{digest}"
