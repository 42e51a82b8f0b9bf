"""Acts that may happen once, although several nodes could do them within the same second.

Decides nothing: a database by itself needs no claims, since its transactions see all that was done
before. Nodes that share their rows set something that asks the engine (`relay.cluster.once`). Must
not know the acts.
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from relay.store.errors import StoreError


class ClaimError(StoreError):
    """The act was not done. The message is for whoever wanted it."""


class Claims(Protocol):
    """`are_needed`: other nodes have the same rows. All methods raise `ClaimError`: other nodes
    cannot be asked now, or are at the act, and nothing has changed."""

    are_needed: bool

    def once(self, kind: str, id: str) -> AbstractAsyncContextManager[None]:
        """Do an act inside, which no other node does, now or later. If it fails, another attempt
        may do it."""

    def alone(self, kind: str) -> AbstractAsyncContextManager[None]:
        """Do an act inside with all that other nodes have done of this kind in sight, and with
        none of them at it meanwhile."""

    async def number(self, series: str, subject: str, above: int) -> int:
        """The next number of a series without gaps, and greater than `above`; a subject that has
        one gets the same again."""


class NoClaims:
    """Of a database by itself."""

    are_needed = False

    def once(self, kind: str, id: str) -> AbstractAsyncContextManager[None]:
        """See `Claims`."""
        return nullcontext()

    def alone(self, kind: str) -> AbstractAsyncContextManager[None]:
        """See `Claims`."""
        return nullcontext()

    async def number(self, series: str, subject: str, above: int) -> int:
        """See `Claims`."""
        return above + 1
