"""Counts the work of a node on shared limits, for metrics and `relay doctor`.

Decides nothing. Counters only grow.
"""


class Figures:
    """See the module."""

    __slots__ = (
        "admitted",
        "admitted_locally",
        "calls",
        "claims",
        "failed_calls",
        "lag",
        "outages",
        "recalled",
        "recalls",
        "refused",
        "refused_away",
        "waited",
    )

    def __init__(self) -> None:
        self.admitted = 0  # requests
        self.waited = 0  # of these, with a wait for a grant
        self.admitted_locally = 0  # of these, during an outage, from the node's share
        self.refused = 0  # requests, since a limit had no room
        self.refused_away = 0  # requests, since the engine was away
        self.calls = 0  # round trips with claims
        self.claims = 0  # in these
        self.failed_calls = 0  # of these
        self.recalls = 0  # requests of other nodes for what is unused here
        self.recalled = 0  # of these, answered with something
        self.outages = 0  # times that the engine was lost
        self.lag = 0.0  # seconds that the last poll took
