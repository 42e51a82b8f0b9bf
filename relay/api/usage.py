"""`GET /v1/usage`: what a key has used, for status lines and for clients that show a plan.

Decides what is shown. Windows and balance come from the ledger; the tokens of today are
remembered for some seconds, so that a client may ask often. Costs nothing of the plan.
"""

import time
from collections import OrderedDict
from dataclasses import replace
from typing import Final

import orjson

from relay import clock
from relay.gateway.context import RequestContext
from relay.quota.bucket import Bucket, TokenBucket
from relay.quota.ledger import Ledger
from relay.quota.plans import Limit
from relay.quota.windows import present_size
from relay.store import usage
from relay.store.database import Database
from relay.store.usage import Filter

PATH: Final = b"/v1/usage"
_DAY_SECONDS: Final = 86_400
_REMEMBERED_SECONDS: Final = 5.0
_MAX_REMEMBERED: Final = 1024  # keys
_MICRO: Final = 1_000_000


class KeyUsage:
    """See the module."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger
        self._today: OrderedDict[str, tuple[float, dict[str, int]]] = OrderedDict()

    async def document(self, ctx: RequestContext, key_id: str) -> bytes:
        """The document of a caller, whose quota `ctx` has."""
        key_state = ctx.key_state
        assert key_state is not None
        today = await self._tokens_today(key_id)
        plan, account = key_state.plan, key_state.account
        owners = [(plan, key_state.counters.owner)]
        balance = key_state.balance
        await self._ledger.refresh(owners, time.time(), "" if balance is None else account)
        now = time.time()
        pairs = zip(key_state.plan.limits, key_state.counters.buckets, strict=True)
        return orjson.dumps(
            {
                "object": "usage",
                "plan": key_state.plan.id,
                "scope": key_state.counters.scope,
                "limits": [_window(limit, bucket, int(now * 1000)) for limit, bucket in pairs],
                "balance_usd": None if balance is None else self._ledger.amount(balance) / _MICRO,
                "today": {"date": clock.rfc3339(now)[:10], **today},
            }
        )

    async def _tokens_today(self, key_id: str) -> dict[str, int]:
        """The tokens of requests that were admitted since midnight (UTC) and have ended."""
        now = time.time()
        known = self._today.get(key_id)
        midnight = now - now % _DAY_SECONDS
        if known is not None and max(now - _REMEMBERED_SECONDS, midnight) <= known[0] <= now:
            return known[1]
        hours = await usage.hours(self._database, Filter(since=midnight, key_id=key_id))
        tokens = {
            "requests": sum(hour.requests for hour in hours),
            "input_tokens": sum(hour.input for hour in hours),
            "output_tokens": sum(hour.output for hour in hours),
            "cache_read_tokens": sum(hour.cache_read for hour in hours),
            "cache_write_tokens": sum(hour.cache_write for hour in hours),
        }
        self._today[key_id] = now, tokens
        self._today.move_to_end(key_id)
        if len(self._today) > _MAX_REMEMBERED:
            self._today.popitem(last=False)
        return tokens


def _window(limit: Limit, bucket: Bucket, moment: int) -> dict[str, object]:
    remaining, reset = bucket.remaining_and_reset(moment)
    size = present_size(bucket, moment)
    if isinstance(bucket, TokenBucket):  # this machine's part, as header fields have it
        limit = replace(limit, size=size)
    return {
        "name": limit.name,
        "kind": limit.kind,
        "period_seconds": limit.per,
        "used": max(0, size - remaining),
        "limit": size,
        "remaining": remaining,
        "reset": clock.rfc3339(reset / 1000),
    }
