"""Whether a round shows the proxy's limit, or that of the clients and the upstream.

Decides when a round's figures are refused, and the words for it. The clients and the upstream
share a core: where that had no time left, they were the limit, or waited for other processes. Must
not know what a round does.
"""

from collections.abc import Mapping

from bench.loadgen import LoadError

# The share of its time in which the load's core is busy when the load is the limit.
MOST_LOAD = 0.95
# A load that uses less does not want more: others fill its core, of which there is a note.
_LEAST_LOAD = 0.15
# The share of its core that a proxy uses at least, of what others leave, when it is the limit.
SATURATED = 0.85
_LEAST_PROXY = 0.4
_LEAST_PACE = 0.9
# Figures that stay of a refused round: they tell why it was.
_KEPT = (
    "share", "others", "load_share", "others_load", "full_load", "load_us", "upstream_us",
    "disturbed",
)  # fmt: skip


_OTHERS = 0.05  # of a core: worth a word


class LimitedError(LoadError):
    """The clients or the upstream were the limit, so that a round says nothing of the proxy."""

    def __init__(self, reason: str, figures: Mapping[str, float] | None = None) -> None:
        super().__init__(f"refused: {reason}")
        self.figures = {name: value for name, value in (figures or {}).items() if name in _KEPT}


def check(figures: Mapping[str, float], *, busy: bool) -> None:
    """Refuse figures of a window in which the load had no headroom.

    `busy` is a round that keeps the proxy busy: it may be the limit though the load's core is
    full, too. In any other round a full core of the load delays answers that the proxy gave in
    time.

    Raises:
        LimitedError: the clients or the upstream were the limit.
    """
    if figures["full_load"] < MOST_LOAD or figures["load_share"] < _LEAST_LOAD:
        return
    if busy and _is_proxy_busy(figures):
        return
    raise LimitedError(reason(figures), figures)


def check_core(figures: Mapping[str, float], most: float) -> None:
    """Refuse figures of a window in which other processes had more than `most` of the proxy's core.

    Raises:
        LimitedError: they had.
    """
    if figures["others"] > most:
        raise LimitedError(_disturbed(figures), {**figures, "disturbed": 1.0})


def _disturbed(figures: Mapping[str, float]) -> str:
    return f"other processes used {100 * figures['others']:.0f} % of the proxy's core"


def check_outlived(ended: int, moment: str) -> None:
    """Refuse a round in which streams came to their end before a moment that they were to outlive.

    Raises:
        LimitedError: some did: the clients or the machine were too slow, not the proxy.
    """
    if ended:
        raise LimitedError(
            f"{ended} streams came to their end before {moment}: "
            "the clients or the machine were too slow"
        )


def check_pace(figures: Mapping[str, float], wanted: float) -> None:
    """Refuse figures of streams that brought fewer events a second than `wanted`, unless the proxy
    could not carry more.

    Raises:
        LimitedError: the clients or the upstream were the limit.
    """
    came = figures["events_s"]
    if came < _LEAST_PACE * wanted and not _is_proxy_busy(figures):
        number = f"{came:,.0f} of {wanted:,.0f} events a second came, "
        raise LimitedError(number + reason(figures), figures)


def _is_proxy_busy(figures: Mapping[str, float]) -> bool:
    """Whether the proxy was the limit. Where others have most of its core, nobody can say."""
    share = figures["share"]
    return share >= _LEAST_PROXY and used(share, figures["others"]) >= SATURATED


def used(share: float, others: float) -> float:
    """The share of the time that other processes left of a core."""
    return share / max(0.01, 1.0 - others)


def reason(figures: Mapping[str, float]) -> str:
    """`the clients and the upstream used 97 % of their core, the proxy 61 % of its own`."""
    load, others = figures["load_share"], figures["full_load"] - figures["load_share"]
    more = f" and other processes {100 * others:.0f} %" if others > _OTHERS else ""
    proxy = f", the proxy {100 * figures['share']:.0f} % of its own" if "share" in figures else ""
    return f"the clients and the upstream used {100 * load:.0f} % of their core{more}{proxy}"


def refusal(figures: Mapping[str, float]) -> str:
    """Why a round has no figures; empty if it has."""
    if not figures.get("limited"):
        return ""
    if figures.get("disturbed"):
        return f"refused: {_disturbed(figures)}"
    known = "load_share" in figures
    return f"refused: {reason(figures) if known else 'the load was late, as a note says'}"
