"""What a tool of the caller's is to the Messages API, which knows functions alone.

Every kind of tool becomes a function there, under a name of its own; an answer's call of that
name becomes a call of the kind that the caller gave.
"""

import re
from hashlib import blake2b
from typing import Final, Literal

import msgspec

Kind = Literal["function", "custom", "local_shell", "shell", "apply_patch", "tool_search"]

_NOT_OF_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]")
_MOST: Final = 128  # characters; docs: agents-and-tools/tool-use/implement-tool-use


class CallerTool(msgspec.Struct, frozen=True):
    """A tool as its caller knows it."""

    kind: Kind
    name: str
    namespace: str | None = None


def function_name(name: str, namespace: str | None = None) -> str:
    """The name of the function that stands for a tool: the same in every turn.

    A namespace comes before it, and two underscores; what such a name cannot have is replaced,
    and one that would be too long ends with a digest of what it should have been.
    """
    whole = name
    if namespace:
        whole = namespace + ("" if namespace.endswith("__") else "__") + name
    plain = _NOT_OF_NAMES.sub("_", whole) or "tool"
    if len(plain) <= _MOST:
        return plain
    digest = blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{plain[: _MOST - 17]}_{digest}"
