"""Responses that are kept for their callers."""

from collections.abc import Sequence

import msgspec

from relay.errors import Kind, RelayError

PREVIOUS_NOT_FOUND = Kind(
    400, "invalid_request_error", "invalid_request_error", "previous_response_not_found"
)


class Stored:
    on = False

    async def before(self, owner: str, id: str) -> list[msgspec.Raw]:
        raise RelayError(
            PREVIOUS_NOT_FOUND,
            f"previous_response_id: no response {id[:80]!r} is kept here; this relay keeps none. "
            "Send the whole conversation as input, with store: false.",
            param="previous_response_id",
        )

    async def keep(
        self,
        id: str,
        owner: str,
        previous: str | None,
        answer: bytes,
        items: Sequence[msgspec.Raw],
        output: Sequence[bytes],
    ) -> None:
        raise NotImplementedError
