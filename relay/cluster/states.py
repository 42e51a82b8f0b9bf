"""The outages and conversations that nodes share, by value.

Decides nothing. Must not know PostgreSQL, so that the pool can use it without the client.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

CLEAR: Final = "clear"  # in the place of a scope: an operator has cleared the upstream
Kind: TypeAlias = Literal["outage", "withdrawal", "clear"]


class Report(NamedTuple):
    """An outage that this node has found, a guess that was wrong, or an operator's clear.

    `upstream` is its identity, `about` the model if the scope is a model's, `caller` the account
    that it holds for (empty: all). `left`: milliseconds; `age`: since it was found.
    """

    kind: Kind
    upstream: str
    scope: str
    about: str = ""
    caller: str = ""
    left: int = 0
    stated: bool = False
    quota: bool = False
    failing: bool = False
    model: str = ""
    reason: str = ""
    age: int = 0


class State(NamedTuple):
    """An outage that holds on all nodes, or a clear (`scope`); see `Report`. `origin`: the process
    that reported it."""

    seq: int
    upstream: str
    origin: str
    scope: str
    about: str
    caller: str
    left: int
    stated: bool
    quota: bool
    failing: bool
    model: str
    reason: str
    age: int


class UpstreamStates(Protocol):
    """The upstreams of a node, as `cluster.upstream_states` sees them."""

    def unread(self) -> list[str]:
        """The identities of upstreams of which nothing was read yet."""

    def take(self, states: Sequence[State], read: Sequence[str]) -> None:
        """States of other processes, in their order, with all of the upstreams `read`."""

    def take_reports(self) -> list[Report]:
        """Reports that are to be sent now."""

    def put_back(self, reports: Sequence[Report]) -> None:
        """These were not sent."""


class Move(NamedTuple):
    """A conversation that is elsewhere than its hash says, or back there (not `moved`).

    `caller` is a key's id; `family` and `mixed` as in `pool.affinity`. `left` and `age`, since its
    latest request, are milliseconds.
    """

    caller: str
    key: bytes
    upstream: str
    family: str
    mixed: bool
    moved: bool
    left: int
    age: int


class Sessions(Protocol):
    """The conversations of a node, as `cluster.session_moves` sees them."""

    def take(self, moves: Sequence[Move]) -> None:
        """Moves of other nodes, in their order."""

    def take_moves(self) -> list[Move]:
        """Moves that are to be sent now."""

    def put_back(self, moves: Sequence[Move]) -> None:
        """These were not sent."""
