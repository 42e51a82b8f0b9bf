"""Refusals by value, as they are sent from the process that decides to the one that answers.

Decides the form alone. The error that comes out has the same answer in every dialect as the one
that went in.
"""

from typing import Any, Final

from relay.errors import OVERLOADED, RATE_LIMITED, Kind, RelayError
from relay.quota.exceeded import PAYMENT_REQUIRED, USED_UP, QuotaExceeded
from relay.quota.plans import Limit

_KINDS: Final = (RATE_LIMITED, USED_UP, PAYMENT_REQUIRED, OVERLOADED)  # compared by identity


def by_value(error: RelayError) -> list[object]:
    """An error as builtins: its kind, message and header fields, and the limit that it is about."""
    kind = error.kind
    words = [kind.status, kind.messages_type, kind.openai_type, kind.code]
    headers = [[name.decode(), value.decode()] for name, value in error.headers]
    quota: list[object] | None = None
    if isinstance(error, QuotaExceeded):
        limit = error.limit
        name = None if limit is None else [limit.kind, limit.size, limit.per, limit.refill]
        quota = [name, error.retry_after, error.resets_at]
    return [words, error.message, headers, quota]


def error_of(value: list[Any]) -> RelayError:
    """The error that `by_value` gave."""
    words, message, headers, quota = value
    kind = Kind(*words)
    for one in _KINDS:
        if one == kind:
            kind = one
    if quota is None:
        error = RelayError(kind, message)
        error.headers = tuple([(name.encode(), text.encode()) for name, text in headers])
        return error
    name, retry_after, resets_at = quota
    limit = None if name is None else Limit(*name)
    return QuotaExceeded(kind, message, limit=limit, retry_after=retry_after, resets_at=resets_at)
