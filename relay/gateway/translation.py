"""A chat completions request on its way through the gateway.

It is read once, before anything is held for it, and written for each upstream that it is sent
to, as that one knows the model; whatever comes back is told in the caller's own dialect. What
the two dialects have in common, and how, is decided in `translate`.
"""

import re
import time
from hashlib import blake2b
from typing import Final

from relay.translate import chat, completion
from relay.translate.completion import Stream, Told
from relay.translate.draft import Fit
from relay.translate.usage import Usage
from relay.wire.events import Request

# The lines of a caller's head that mean nothing to the Messages API, or something else. All
# others go on, as they do for messages.
_CALLERS: Final = re.compile(
    rb"^(?:accept|content-type|anthropic-version|openai-[^:\r\n]*|x-stainless-[^:\r\n]*):[^\n]*\n",
    re.IGNORECASE | re.MULTILINE,
)
_FIELDS: Final = b"content-type: application/json\r\nanthropic-version: %b\r\n"
_VERSION: Final = b"2023-06-01"
_WITH_SYSTEM_TURNS: Final = b"2026-10-21"  # the first that has them without a beta


class Translation:
    """One request. `name` is its dialect's, as the journal has it."""

    __slots__ = ("_breakpoints", "_chat", "_created", "_id", "_model", "_user")

    name: Final = "chat"
    keep_alive: Final = completion.KEEP_ALIVE

    def __init__(
        self, body: bytes, model: str, request_id: str, key_id: str, *, breakpoints: bool
    ) -> None:
        """Raises RelayError: 400, something cannot be honoured; its `param` says what."""
        self._chat = chat.read(body)
        self._id = "chatcmpl-" + request_id.removeprefix("req_")
        self._model = model
        self._created = int(time.time())
        self._breakpoints = breakpoints
        self._user: str | None = None
        if (user := self._chat.user) is not None:
            # Upstreams want an id that stays the same, and have no business with who it is.
            digest = blake2b(user.encode("utf-8", "surrogatepass"), key=key_id.encode()[:64])
            self._user = digest.hexdigest()[:32]

    @property
    def stream(self) -> bool:
        """Whether the caller wants a stream."""
        return self._chat.stream

    @property
    def max_tokens(self) -> int | None:
        """The most output tokens that the caller wants; None: they do not say."""
        return self._chat.draft.max_tokens

    def octets(self, fit: Fit) -> bytes:
        """The body of the Messages request for a model as one upstream has it.

        Raises:
            RelayError: 400, that model cannot do what is asked.
        """
        return self._chat.draft.octets(fit, breakpoints=self._breakpoints, user=self._user)

    def fields(self, request: Request) -> bytes:
        """The field lines that go upstream."""
        version = _WITH_SYSTEM_TURNS if self._chat.draft.system_turns else _VERSION
        return _FIELDS % version + _CALLERS.sub(b"", request.onward)

    def whole(self, payload: bytes, fit: Fit, usage: Usage) -> bytes:
        """A whole answer in the caller's dialect; `usage` is what it used.

        Raises:
            ValueError: `payload` is none.
        """
        return completion.whole(payload, self._told(fit), usage)

    def machine(self, fit: Fit) -> Stream:
        """What makes the caller's stream of the upstream's."""
        return Stream(self._told(fit), include_usage=self._chat.include_usage)

    def error(self, status: int, payload: bytes) -> tuple[int, bytes]:
        """An upstream's own error in the caller's dialect: status and document."""
        return completion.error(status, payload)

    def error_event(self, payload: bytes) -> bytes:
        """The same for a stream that has begun."""
        return completion.error_event(payload)

    def _told(self, fit: Fit) -> Told:
        return Told(self._id, self._created, self._model, fit.family)
