"""A request of another dialect on its way through the gateway: what each of them has to tell.

It is read once, before anything is held for it, and written for each upstream that it is sent
to, as that one knows the model; whatever comes back is told in the caller's own dialect. What
two dialects have in common, and how, is decided in `translate`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import ClassVar, Final, Protocol

import msgspec

from relay.errors import Dialect, RelayError
from relay.quota.state import KeyState
from relay.store.keys import LiveKey
from relay.translate.messages.usage import Usage
from relay.translate.request.builder import MessagesBuilder, TargetModel
from relay.wire.events import Request

# The lines of a caller's head that mean nothing to the Messages API, or something else. All
# others go on, as they do for messages.
_CALLERS: Final = re.compile(
    rb"^(?:accept|content-type|content-encoding|anthropic-version|originator|session-id|thread-id"
    rb"|x-client-request-id|(?:openai|x-openai|x-codex|x-stainless)-[^:\r\n]*):[^\n]*\n",
    re.IGNORECASE | re.MULTILINE,
)
_FIELDS: Final = b"content-type: application/json\r\nanthropic-version: %b\r\n"
_VERSION: Final = b"2023-06-01"
_WITH_SYSTEM_TURNS: Final = b"2026-10-21"  # the first that has them without a beta


class InboundRequest(msgspec.Struct, frozen=True):
    """Who asks what: all that a request is read by but its dialect."""

    head: Request
    body: bytes
    model: str
    request_id: str
    caller: LiveKey
    breakpoints: bool  # set marks for the prompt cache where the caller has set none


class StreamTranslator(Protocol):
    """What makes the caller's stream of the upstream's; see translate.completion_stream."""

    usage: Usage

    def feed(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


class Translation(ABC):
    """One request.

    `name` is its dialect's, as the journal has it; `dialect` whose shape errors take before a
    stream has begun. `ends_failed`: an error is an end of a stream
    like any other; where it is not, the connection is cut after it. `keeps`: the answer is to be
    kept before its end is sent.
    """

    name: ClassVar[str]
    dialect: ClassVar[Dialect]
    ends_failed: ClassVar[bool] = False
    keeps = False
    stream: bool  # whether the caller wants one
    _draft: MessagesBuilder

    def __init__(self, asking: InboundRequest, user: str | None) -> None:
        """`user`: whom the caller asks for."""
        self._breakpoints = asking.breakpoints
        self._user: str | None = None
        if user is not None:
            # Upstreams want an id that stays the same, and have no business with who it is.
            key = asking.caller.key_id.encode()[:64]
            digest = blake2b(user.encode("utf-8", "surrogatepass"), key=key)
            self._user = digest.hexdigest()[:32]

    @property
    def max_tokens(self) -> int | None:
        """The most output tokens that the caller wants; None: they do not say."""
        return self._draft.max_tokens

    def octets(self, fit: TargetModel) -> bytes:
        """The body of the Messages request for a model as one upstream has it.

        Raises:
            RelayError: 400, that model cannot do what is asked.
        """
        return self._draft.octets(fit, breakpoints=self._breakpoints, user=self._user)

    def fields(self, request: Request) -> bytes:
        """The field lines that go upstream."""
        version = _WITH_SYSTEM_TURNS if self._draft.system_turns else _VERSION
        return _FIELDS % version + _CALLERS.sub(b"", request.onward)

    def lines(self, holder: KeyState, now: float) -> bytes:
        """Header lines that the clients of this dialect read besides all others."""
        return b""

    @abstractmethod
    def whole(self, payload: bytes, fit: TargetModel, usage: Usage) -> bytes:
        """A whole answer in the caller's dialect; `usage` is what it used.

        Raises:
            ValueError: `payload` is none.
        """

    @abstractmethod
    def machine(self, fit: TargetModel) -> StreamTranslator:
        """What makes the caller's stream of the upstream's."""

    @abstractmethod
    def keep_alive(self) -> bytes:
        """What shows life in a stream that has nothing to show."""

    @abstractmethod
    def failed(self, error: RelayError) -> bytes:
        """What ends a stream that has begun and came to nothing."""

    @property
    def before(self) -> Sequence[msgspec.Raw]:
        """What was said before what the request has of its conversation."""
        return ()

    async def keep(self) -> None:  # noqa: B027 - most have nothing to keep
        """Keep the answer, which is whole.

        Raises:
            RelayError: that could not be done.
        """


Reader = Callable[[InboundRequest], Awaitable[Translation]]
"""Reads a request. Raises RelayError: 400, something in it cannot be honoured."""
