"""What a model takes of what callers may ask for.

Two values: `Capabilities`, which is resolved, and `Overrides`, what a table or relay.toml says of
it.
Which model takes what is found out in `models`; what becomes of a request that asks for something
else is decided in `relay.translate`.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

Sampling = Literal["both", "one", "none"]
Thinking = Literal["adaptive", "budget", "none"]
Effort = Literal["low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = ("low", "medium", "high", "xhigh", "max")


class Capabilities(msgspec.Struct, frozen=True):
    """What one model takes, as one upstream has it."""

    # temperature and top_p: both; one, but not the two at once; none: only their defaults
    sampling: Sampling = "both"
    # how it is asked to think: thinking.type "adaptive", or "enabled" with a budget; none: not
    thinking: Thinking = "none"
    efforts: tuple[str, ...] = ()  # of output_config.effort, the least first; (): it has none
    prefill: bool = True  # the last message may be the assistant's, to be continued
    system_turns: bool = False  # messages of role "system" between turns
    structured: bool = True  # output_config.format, and `strict` of tools
    web_search: bool = False  # the server tool web_search_20250305


class Overrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Those settings of `Capabilities` that somebody gave; the others stay as they are."""

    sampling: Sampling | UnsetType = UNSET
    thinking: Thinking | UnsetType = UNSET
    efforts: list[Effort] | UnsetType = UNSET
    prefill: bool | UnsetType = UNSET
    system_turns: bool | UnsetType = UNSET
    structured: bool | UnsetType = UNSET
    web_search: bool | UnsetType = UNSET

    def of(self, base: Capabilities) -> Capabilities:
        """`base` with what is given here."""
        given = {name: getattr(self, name) for name in base.__struct_fields__}
        given = {name: value for name, value in given.items() if value is not UNSET}
        if "efforts" in given:  # in whatever order they were written
            given["efforts"] = tuple(effort for effort in EFFORTS if effort in given["efforts"])
        return msgspec.structs.replace(base, **given)
