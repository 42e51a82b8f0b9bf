"""How long a run takes: known before it starts, and kept below a bound.

Decides the expected length of a round, the scenarios of a quick run, and how long windows are where
that is left open. Must not know what a round does. The lengths were measured on two cores; a run
corrects them as it goes on.
"""

from collections.abc import Sequence
from dataclasses import replace

from bench.curves import PREFIX
from bench.scenarios import ADDED
from bench.stage import Settings

# `--quick`: all kinds of costs within a minute.
QUICK = ("json", "latency", "first", "sse", "json-300k", "memory", "ready")
MOST_S = 20 * 60.0  # of a run whose windows may be shortened
_SECONDS = (1.0, 5.0)  # the shortest and the longest window of such a run
_START_S = 1.2  # a process starts, and ends
_WARM_S = 0.8
# Seconds of a round beside start and window; of the first kind that the name ends with.
_EXTRA_S = (
    ("chat-first", 0.3),
    ("sse", 5.0),
    ("json-1m", 1.5),
    ("rate", 22.0),
    ("gaps", 4.0),
    ("live-streams", 8.0),
)
# Rounds without a window: their length depends on their own load.
_FIXED_S = {
    "memory": 3.4,
    "idle": 1.0,
    "slow": 3.6,
    "ready": 0.0,
    "idle-streams": 2.0,
    "idle-streams-10k": 9.0,
    "handover": 11.0,
    "quota": 1.0,
    "agents": 10.0,
}
_RELAY_ONLY = frozenset({"handover", "quota", "agents"})
_BODY_S = 1.6  # for each size of body
_SIZES = 6  # of a curve


def round_s(scenario: str, settings: Settings) -> float:
    """The expected seconds of one round of one rival."""
    if scenario.endswith("body-memory"):
        return (_START_S + _BODY_S) * len(settings.bodies)
    if scenario in _FIXED_S:
        return _START_S + _FIXED_S[scenario]
    extra = next((extra for name, extra in _EXTRA_S if scenario.endswith(name)), _WARM_S)
    one = _START_S + extra + settings.seconds
    return one * _SIZES if scenario.startswith(PREFIX) else one


def scenario_s(scenario: str, settings: Settings, rivals: int) -> float:
    """The expected seconds of all rounds; `rivals` are those with a process."""
    if scenario in _RELAY_ONLY:
        rivals = 1
    return settings.rounds * (rivals + (scenario in ADDED)) * round_s(scenario, settings)


def total_s(scenarios: Sequence[str], settings: Settings, rivals: int) -> float:
    return sum(scenario_s(name, settings, rivals) for name in scenarios)


def fitted(scenarios: Sequence[str], settings: Settings, rivals: int) -> Settings:
    """The settings with the longest windows that keep the run below its bound, in half seconds."""
    shortest, longest = _SECONDS
    seconds = longest
    while seconds > shortest:
        settings = replace(settings, seconds=seconds)
        if total_s(scenarios, settings, rivals) <= MOST_S:
            return settings
        seconds -= 0.5
    return replace(settings, seconds=shortest)


def spoken(seconds: float) -> str:
    """`40 seconds`, `12 minutes`."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} seconds"
    return f"{round(seconds / 60)} minutes"
