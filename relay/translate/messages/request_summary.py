"""The members of a request that the relay reads before all others."""

from typing import Any

import msgspec

from relay.translate.messages.second_reading import NOTHING


class RequestSummary:
    """See the module. Only `model` is checked: the upstream checks the rest.

    `mended`: the body as it can be read, if that differs; empty if not. See `halves`.
    """

    __slots__ = ("max_tokens", "mended", "model", "stream", "thread")

    def __init__(
        self, model: str, stream: Any, max_tokens: Any, thread: msgspec.Raw = NOTHING
    ) -> None:
        self.model = model
        self.stream = stream
        self.max_tokens = max_tokens
        self.thread = thread
        self.mended = b""
