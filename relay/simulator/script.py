"""The `x-simulate` header: what one request asks the simulator to do, as a value.

Pure. `tokens=200;pace=25` is parsed into a `Script`; what a fault does on the wire is
`faults`' matter. The names are the whole vocabulary: an unknown one is refused, since
a test that misspells a fault would otherwise pass.
"""

from functools import lru_cache
from typing import Final

import msgspec

from relay.simulator.refusal import invalid

FAULTS: Final = frozenset(
    {
        "status",
        "error",
        "cut",
        "reset",
        "stall",
        "clean-end",
        "truncated-chunk",
        "garbage",
        "garbage-sse",
        "half-head",
        "huge-head",
        "no-final-chunk",
        "close",
        "empty",
        "html",
        "redirect",
        "stall-head",
        "storm",
        "extra",
        "gzip",
        "drip",
        "short-length",
    }
)
# Reasons to stop that no request leads to here; tool_use and stop_sequence have their own ways.
STOPS: Final = frozenset(
    {"refusal", "max_tokens", "pause_turn", "model_context_window_exceeded", "end_turn"}
)
_MAX_TOKENS = 1_000_000
_MAX_BYTES = 64 * 1024 * 1024
_MAX_DELAY = 3_600
_MAX_PACE = 100_000


class Script(msgspec.Struct, frozen=True):
    """What to do with one request; the default is to answer it well."""

    tokens: int | None = None  # length of the answer, one text delta each
    bytes: int | None = None  # exact size of the answer's text
    pace: float = 0.0  # events per second, 0 = as fast as possible
    delay: float = 0.0  # seconds before the response head
    thinking: bool = False  # think even when the request does not ask for it
    tool: str | None = None  # call this tool
    tools: int = 1  # parallel calls
    seed: str = ""
    stop: str = ""  # the stop_reason, whatever the answer says
    split: int = 0  # write the wire bytes in pieces of this size
    fault: str = ""
    at: int = 5  # the event (or byte) at which the fault strikes
    status: int = 529
    retry_after: str | None = None


NORMAL: Final = Script()

_NUMBERS: Final = {
    "tokens": (0, _MAX_TOKENS),
    "bytes": (0, _MAX_BYTES),
    "tools": (1, 32),
    "split": (1, _MAX_BYTES),
    "at": (0, _MAX_BYTES),
    "status": (400, 599),
}
_FRACTIONS: Final = {"pace": _MAX_PACE, "delay": _MAX_DELAY}


@lru_cache(maxsize=1024)
def parse(header: str) -> Script:
    """`"fault=status;status=429;retry-after=3"` → a `Script`.

    Raises:
        Refusal: an unknown name, or a value that the name does not take.
    """
    fields: dict[str, object] = {}
    for item in header.split(";"):
        name, _, value = (part.strip() for part in item.partition("="))
        if not name:
            continue
        if name in _NUMBERS:
            low, high = _NUMBERS[name]
            fields[name] = _whole(name, value, low, high)
        elif name in _FRACTIONS:
            fields[name] = _fraction(name, value, _FRACTIONS[name])
        elif name == "thinking":
            fields[name] = value not in ("", "0")
        elif name in ("tool", "seed"):
            fields[name] = value
        elif name == "retry-after":
            fields["retry_after"] = value
        elif (name == "fault" and value in FAULTS) or (name == "stop" and value in STOPS):
            fields[name] = value
        else:
            raise invalid(f"x-simulate: {item.strip()!r} is not understood")
    if "status" in fields and "fault" not in fields:
        fields["fault"] = "status"
    return msgspec.convert(fields, Script)


def _whole(name: str, value: str, low: int, high: int) -> int:
    if value.isascii() and value.isdigit() and low <= int(value) <= high:
        return int(value)
    raise invalid(f"x-simulate: {name} takes a whole number from {low} to {high}, not {value!r}")


def _fraction(name: str, value: str, high: int) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if 0 <= number <= high:
        return number
    raise invalid(f"x-simulate: {name} takes a number from 0 to {high}, not {value!r}")
