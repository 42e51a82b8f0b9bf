"""Errors of the provisioning API: one shape for all (RFC 9457).

Decides status and title of each. The detail says what to do.
"""

from http import HTTPStatus
from typing import Final

import orjson

CONTENT_TYPE: Final = (b"content-type", b"application/problem+json")


class Problem(Exception):  # noqa: N818 -- the word of RFC 9457
    """A call that failed; `headers` are sent with the answer."""

    def __init__(
        self, status: int, detail: str, *, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers

    def body(self, request_id: str) -> bytes:
        """The document."""
        return orjson.dumps(
            {
                "type": "about:blank",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
                "request_id": request_id,
            }
        )


def not_found(what: str) -> Problem:
    """There is no such thing."""
    return Problem(404, f"There is no {what} with this id.")


def sentence(error: Exception) -> str:
    """The message of an error as a sentence; ids in it stay as they are."""
    text = str(error)
    return text[:1].upper() + text[1:] + "."
