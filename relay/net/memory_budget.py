"""The octets held for requests: a budget of all, a share of each owner, and the uploads of each.

Decides whether octets may be held, before they are collected. Pure accounting: it holds no octets
itself. Must not know sockets, or what an owner is.
"""

from typing import Final

from relay.errors import OVERLOADED, RATE_LIMITED, TOO_LARGE, Header, RelayError

_RETRY_AFTER: Final[tuple[Header, ...]] = ((b"retry-after", b"1"),)


class MemoryBudget:
    """See the module. All sizes are in octets."""

    __slots__ = ("_by_owner", "_share", "_total", "_uploads", "_uploads_by_owner", "held")

    def __init__(self, total: int, share: int, uploads: int) -> None:
        """`share` is the most of one owner, `uploads` the unfinished uploads of one owner."""
        self.bound(total, share, uploads)
        self._by_owner: dict[str, int] = {}
        self._uploads_by_owner: dict[str, int] = {}
        self.held = 0

    def bound(self, total: int, share: int, uploads: int) -> None:
        """Use these bounds from now on; all that is held stays."""
        self._total = total
        self._share = share
        self._uploads = uploads

    def held_by(self, owner: str) -> int:
        """The octets that are held for one owner."""
        return self._by_owner.get(owner, 0)

    def begin_upload(self, owner: str) -> None:
        """Count an upload that has not arrived; `end_upload` ends it.

        Raises:
            RelayError: 429, too many uploads of this owner are unfinished.
        """
        number = self._uploads_by_owner.get(owner, 0)
        if number >= self._uploads:
            raise RelayError(
                RATE_LIMITED,
                f"{number} request bodies of this key are on their way. Finish one first.",
                headers=_RETRY_AFTER,
            )
        self._uploads_by_owner[owner] = number + 1

    def end_upload(self, owner: str) -> None:
        """Undo `begin_upload`."""
        number = self._uploads_by_owner[owner] - 1
        if number:
            self._uploads_by_owner[owner] = number
        else:
            del self._uploads_by_owner[owner]

    def change(self, owner: str, before: int, after: int) -> None:
        """Hold `after` octets in place of `before`; a reduction always succeeds.

        Raises:
            RelayError: 503 over the budget of all, 429 over the owner's share, 413 if even the
                complete share is too small.
        """
        more = after - before
        of_owner = self._by_owner.get(owner, 0)
        if more > 0:
            if after > self._share:
                raise RelayError(
                    TOO_LARGE,
                    f"The request takes more than {self._share} octets, the most that is held "
                    "for one key. Shorten the conversation or send smaller files.",
                )
            if of_owner + more > self._share:
                raise RelayError(
                    RATE_LIMITED,
                    f"The requests of this key in progress hold {of_owner} octets of "
                    f"{self._share}. Wait for one to be answered, then try again.",
                    headers=_RETRY_AFTER,
                )
            if self.held + more > self._total:
                raise RelayError(
                    OVERLOADED,
                    "The relay holds as many requests as it has memory for. Try again in a moment.",
                    headers=_RETRY_AFTER,
                )
        self.held += more
        if of_owner + more:
            self._by_owner[owner] = of_owner + more
        else:
            self._by_owner.pop(owner, None)


class HeldOctets:
    """The octets held for one request."""

    __slots__ = ("_budget", "_owner", "octets")

    def __init__(self, budget: MemoryBudget, owner: str) -> None:
        self._budget = budget
        self._owner = owner
        self.octets = 0

    def resize(self, octets: int) -> None:
        """Hold so many octets from now on; 0 gives all of them back, however often.

        Raises:
            RelayError: there is no room, see `MemoryBudget.change`; as many as before are held.
        """
        self._budget.change(self._owner, self.octets, octets)
        self.octets = octets
