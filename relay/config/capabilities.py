"""Model capabilities: the parameters and features that a model accepts.

Two values: the resolved `Capabilities`, and `Overrides` that a table or relay.toml gives. Must not
know models (`models` finds their capabilities) or requests (`relay.translate` adapts them).
"""

from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

Sampling = Literal["both", "one", "none"]
Thinking = Literal["always", "adaptive", "budget", "none"]
Effort = Literal["low", "medium", "high", "xhigh", "max"]
EFFORTS: Final[tuple[Effort, ...]] = ("low", "medium", "high", "xhigh", "max")


class Capabilities(msgspec.Struct, frozen=True):
    """What one model accepts at one upstream."""

    # temperature and top_p: both at once, one at a time, or none (only their defaults)
    sampling: Sampling = "both"
    # thinking.type "adaptive", the only one that "always" takes; or "enabled" with a budget; or
    # no thinking
    thinking: Thinking = "none"
    efforts: tuple[str, ...] = ()  # of output_config.effort, lowest first; (): not accepted
    prefill: bool = True  # the last message may be the assistant's, to be continued
    system_turns: bool = False  # messages of role "system" between turns
    structured: bool = True  # output_config.format, and `strict` of tools
    web_search: bool = False  # the server tool web_search_20250305


class Overrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to `Capabilities`; unset fields change nothing."""

    sampling: Sampling | UnsetType = UNSET
    thinking: Thinking | UnsetType = UNSET
    efforts: list[Effort] | UnsetType = UNSET
    prefill: bool | UnsetType = UNSET
    system_turns: bool | UnsetType = UNSET
    structured: bool | UnsetType = UNSET
    web_search: bool | UnsetType = UNSET

    def of(self, base: Capabilities) -> Capabilities:
        """`base` with these changes."""
        given = {name: getattr(self, name) for name in base.__struct_fields__}
        given = {name: value for name, value in given.items() if value is not UNSET}
        if "efforts" in given:  # may be written in any order
            given["efforts"] = tuple(effort for effort in EFFORTS if effort in given["efforts"])
        return msgspec.structs.replace(base, **given)
