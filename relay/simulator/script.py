"""The `x-simulate` header as a value: how the simulator answers one request.

Pure. Decides which names and values there are: `tokens=200;pace=25` is parsed into a `Script`.
An unknown name is refused, since a test that misspells a fault would otherwise pass. Must not
know what a fault does on the wire.
"""

from functools import lru_cache
from typing import Final

import msgspec
import orjson

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
        "zstd",
        "deflate",
        "other-form",
        "label",
        "no-stop",
        "envelope",
        "nothing",
        "page",
        "error-object",
        "drip",
        "short-length",
    }
)
# Values of `stop`. A request itself leads to tool_use and stop_sequence.
STOPS: Final = frozenset(
    {"refusal", "max_tokens", "pause_turn", "model_context_window_exceeded", "end_turn"}
)
_MAX_TOKENS: Final = 1_000_000
_MAX_BYTES: Final = 64 * 1024 * 1024
_MAX_DELAY_SECONDS: Final = 3_600
_MAX_PACE: Final = 100_000  # events per second
_MAX_SCRIPTS: Final = 10_000


class Script(msgspec.Struct, frozen=True):
    """Instructions for one answer; the default is a good one."""

    tokens: int | None = None  # length of the answer; a text delta for each
    bytes: int | None = None  # exact size of the answer's text
    pace: float = 0.0  # events per second; 0: as fast as possible
    delay: float = 0.0  # seconds before the response head
    thinking: bool = False  # think even if the request does not ask for it
    tool: str | None = None  # call this tool
    tools: int = 1  # parallel calls
    seed: str = ""
    stop: str = ""  # the stop_reason of any answer
    split: int = 0  # octets of each piece that is written
    fault: str = ""
    at: int = 5  # event of a stream, or octet of a body, at which the fault strikes
    status: int = 529
    retry_after: str | None = None


NORMAL: Final = Script()

_INTEGERS: Final = {
    "tokens": (0, _MAX_TOKENS),
    "bytes": (0, _MAX_BYTES),
    "tools": (1, 32),
    "split": (1, _MAX_BYTES),
    "at": (0, _MAX_BYTES),
    "status": (400, 599),
}
_FRACTIONS: Final = {"pace": _MAX_PACE, "delay": _MAX_DELAY_SECONDS}


@lru_cache(maxsize=1024)
def parse(header: str) -> Script:
    """Parse a header such as `fault=status;status=429;retry-after=3`.

    Raises:
        Refusal: 400, for an unknown name or a value out of its range.
    """
    fields: dict[str, object] = {}
    for item in header.split(";"):
        name, _, value = (part.strip() for part in item.partition("="))
        if not name:
            continue
        if name in _INTEGERS:
            low, high = _INTEGERS[name]
            fields[name] = _integer(name, value, low, high)
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


def _integer(name: str, value: str, low: int, high: int) -> int:
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


def parse_list(body: bytes) -> list[Script]:
    """Parse a JSON list of headers; an empty one stands for `NORMAL`.

    Raises:
        Refusal: 400, for anything else.
    """
    try:
        items = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(f"The script is not valid JSON: {error}") from None
    if type(items) is not list or not all(type(item) is str for item in items):
        raise invalid("The script is a JSON list of x-simulate strings")
    if len(items) > _MAX_SCRIPTS:
        raise invalid(f"The script is longer than {_MAX_SCRIPTS} entries")
    return [parse(item) if item else NORMAL for item in items]
