"""Threads of the Messages API: which upstream holds the messages that a request goes on from.

A thread is kept where its messages were made, so the id of a message means something at that one
upstream, and to the account that got it (Anthropic API docs, Message threads). A request that goes
on from a message goes to its upstream alone. Where that is not possible the caller gets an error at
which SDKs send the whole conversation again.

Decides the targets of a request with a `thread`. Must not know connections or a clock.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from relay.errors import INVALID_REQUEST, NOT_FOUND, Kind, RelayError
from relay.pool.routes import Route, Target
from relay.pool.thread_fields import ThreadFields

_MESSAGE_ID: Final = re.compile(rb'"id"[ \t\r\n]*:[ \t\r\n]*"([^"\\]{1,128})"')
_SEARCHED_OCTETS: Final = 4096  # of an answer, for its id
_MAX_ID: Final = 128  # characters


_decode: Final = msgspec.json.Decoder(ThreadFields).decode


class HeldRoute(Route):
    """The one target that holds a thread."""

    __slots__ = ()


class Threads:
    """The upstream of each message that may be gone on from, the oldest forgotten first.
    `on_remembered`, if there is one, gets each account, message and upstream."""

    def __init__(self, capacity: int = 100_000, of_account: int = 2_000) -> None:
        """`capacity`: messages of all accounts; `of_account`: of one of them."""
        self._capacity = capacity
        self._of_account = of_account
        self._upstreams: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._accounts: dict[str, OrderedDict[str, None]] = {}
        self.on_remembered: Callable[[str, str, str], None] | None = None

    def __len__(self) -> int:
        return len(self._upstreams)

    def narrowed(self, account: str, route: Route, thread: msgspec.Raw) -> Route:
        """The targets of `route` that a request with this `thread` may go to.

        Raises:
            RelayError: 404, the message is not known here, or its upstream serves the model no
                more; 400, no upstream of the model has threads.
        """
        wanted = _read(thread)
        able = [target for target in route.targets if target.upstream.vendor.threads]
        if wanted is None or wanted.type != "continue":
            return Route(tuple(able)) if able else route
        if not able:
            raise _error(
                INVALID_REQUEST,
                "thread_unsupported_request",
                "thread: the upstreams of this model hold no threads. Send the whole conversation, "
                "without `thread`.",
            )
        name = self._upstreams.get((account, wanted.previous_message_id))
        held = tuple(target for target in able if target.upstream.name == name)
        if not held:
            raise not_found()
        return HeldRoute(held)

    def remember(self, account: str, target: Target, answer: bytes) -> None:
        """Note which upstream holds a message; `answer` is the beginning of the answer with it."""
        match = _MESSAGE_ID.search(answer, 0, _SEARCHED_OCTETS)
        if match is None or not target.upstream.vendor.threads:
            return
        id, name = match[1].decode("utf-8", "replace"), target.upstream.name
        self.put(account, id, name)
        if self.on_remembered is not None:
            self.on_remembered(account, id, name)

    def put(self, account: str, id: str, upstream: str) -> None:
        """Note by name which upstream holds a message."""
        own = self._accounts.setdefault(account, OrderedDict())
        own[id] = None
        own.move_to_end(id)
        self._upstreams[account, id] = upstream
        self._upstreams.move_to_end((account, id))
        if len(own) > self._of_account:
            self._forget(account, next(iter(own)))
        elif len(self._upstreams) > self._capacity:
            self._forget(*next(iter(self._upstreams)))

    def messages(self) -> list[tuple[str, str, str]]:
        """All accounts and messages with their upstreams, the oldest first."""
        return [(account, id, name) for (account, id), name in self._upstreams.items()]

    def _forget(self, account: str, id: str) -> None:
        del self._upstreams[account, id]
        own = self._accounts[account]
        del own[id]
        if not own:
            del self._accounts[account]


def not_found() -> RelayError:
    """The error at which SDKs send the whole conversation again."""
    return _error(
        NOT_FOUND,
        "thread_not_found",
        "thread.previous_message_id: the thread is not kept here, or cannot be reached now. Send "
        "the whole conversation.",
    )


def _error(kind: Kind, code: str, words: str) -> RelayError:
    return RelayError(kind, words, param="thread", details={"error_code": code})


def _read(thread: msgspec.Raw) -> ThreadFields | None:
    """A request's `thread`; None if it is none, which its upstream refuses in its own words."""
    try:
        wanted = _decode(thread)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return wanted if len(wanted.previous_message_id) <= _MAX_ID else None
