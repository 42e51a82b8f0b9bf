"""The endpoints for spend limits, in the shape of Anthropic's Admin API (Spend Limits API).

Amounts there are text in cents; here a limit is whole micro-dollars. Every period that the API
names is served, and the scope `user`. Decides the shape alone.
"""

from typing import Annotated, Any, Literal

import msgspec

from relay import clock
from relay.provisioning.call import Call, Reply, cursor_of, place_of
from relay.provisioning.problems import Problem, not_found
from relay.quota.bucket import calendar_period
from relay.store.spend_limits import (
    Period,
    SpendLimit,
    delete_spend_limit,
    find_spend_limit,
    set_spend_limit,
    spend_limits,
    spent,
)
from relay.store.users import User, page_of_users, user_by_id

_MICRO_PER_CENT = 10_000
_MAX_CENTS = 10**8
_UNITS: dict[str, str] = {"daily": "day", "weekly": "week", "monthly": "month"}

UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class UserScope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit of one person."""

    user_id: UserId
    type: Literal["user"]


class NewSpendLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`amount`: whole cents as text; null: no limit."""

    scope: UserScope
    amount: Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,8})$")] | None
    period: Period = "monthly"


class SpendLimitView(msgspec.Struct, frozen=True):
    """A configured limit."""

    id: str
    created_at: str
    updated_at: str
    scope: UserScope
    amount: str | None
    period: Period
    currency: Literal["USD"] = "USD"
    is_enabled: bool = True
    type: Literal["spend_limit"] = "spend_limit"


class DeletedSpendLimit(msgspec.Struct, frozen=True):
    """A limit that is gone."""

    id: str
    type: Literal["spend_limit_deleted"] = "spend_limit_deleted"


class UserActor(msgspec.Struct, frozen=True):
    """A person."""

    user_id: str
    name: str
    email_address: str
    deleted: bool = False
    type: Literal["user_actor"] = "user_actor"


class Source(msgspec.Struct, frozen=True):
    """Where a limit comes from: the person's own, or none of the organization."""

    type: Literal["user", "organization"]


class EffectiveLimit(msgspec.Struct, frozen=True):
    """The limit that applies to a person in a period, and what they spent in it, in cents."""

    scope: UserScope
    actor: UserActor
    amount: str | None
    period: Period
    source: Source
    spend_limit_id: str | None
    period_to_date_spend: str
    currency: Literal["USD"] = "USD"


class EffectivePage(msgspec.Struct, frozen=True):
    """A part of the list. `next_page` asks for the next one."""

    data: list[EffectiveLimit]
    next_page: str | None


class EffectiveQuery(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"user_ids": "user_ids[]", "period": "period[]"},
):
    """`page` is the cursor that came with the part before."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    page: Annotated[str, msgspec.Meta(min_length=1, max_length=600)] | None = None
    user_ids: Annotated[list[UserId], msgspec.Meta(max_length=100)] = []
    period: Annotated[list[Period], msgspec.Meta(max_length=3)] = []  # []: monthly


def cents(micro: int) -> str:
    """Micro-dollars as cents, with a fraction if there is one."""
    units, rest = divmod(micro, _MICRO_PER_CENT)
    return f"{units}.{rest:04d}".rstrip("0").rstrip(".")


def _view(limit: SpendLimit) -> SpendLimitView:
    return SpendLimitView(
        limit.id,
        clock.rfc3339(limit.created_at),
        clock.rfc3339(limit.updated_at),
        UserScope(limit.user_id, "user"),
        None if limit.amount_micro is None else cents(limit.amount_micro),
        limit.period,
    )


async def create(call: Call) -> Reply:
    """Set a person's limit of a period; one that is there is overwritten."""
    new: NewSpendLimit = call.body
    user = await user_by_id(call.database, new.scope.user_id)
    if user is None:
        raise not_found("person")
    micro = None if new.amount is None else int(new.amount) * _MICRO_PER_CENT
    if micro is not None and micro > _MAX_CENTS * _MICRO_PER_CENT:
        raise Problem(422, f"A limit is at most {_MAX_CENTS:,} cents.")
    return Reply(_view(await set_spend_limit(call.database, user.id, new.period, micro, call.now)))


async def show(call: Call) -> Reply:
    """One configured limit."""
    limit = await find_spend_limit(call.database, call.path[0])
    if limit is None:
        raise not_found("spend limit")
    return Reply(_view(limit))


async def delete(call: Call) -> Reply:
    """Remove a limit."""
    if not await delete_spend_limit(call.database, call.path[0], call.now):
        raise not_found("spend limit")
    return Reply(DeletedSpendLimit(call.path[0]))


async def list_effective(call: Call) -> Reply:
    """The limit of each person, and what they have spent in its period."""
    query: EffectiveQuery = call.query
    if query.user_ids:
        found = [await user_by_id(call.database, one) for one in query.user_ids]
        people, cursor = [one for one in found if one is not None], None
    else:
        people = await page_of_users(call.database, query.limit + 1, place_of(query.page))
        more = len(people) > query.limit
        people = people[: query.limit]
        cursor = cursor_of(people[-1].email) if more else None
    limits: dict[tuple[str, str], SpendLimit] = {
        (one.user_id, one.period): one
        for one in await spend_limits(call.database, [user.id for user in people])
    }
    rows = [
        await _effective(call, user, period, limits.get((user.id, period)))
        for user in people
        for period in query.period or ["monthly"]
    ]
    return Reply(EffectivePage(rows, cursor))


async def _effective(
    call: Call, user: User, period: Any, limit: SpendLimit | None
) -> EffectiveLimit:
    begin = calendar_period(_UNITS[period], int(call.now * 1000))[0] // 1000
    own = limit is not None and limit.amount_micro is not None
    return EffectiveLimit(
        UserScope(user.id, "user"),
        UserActor(user.id, user.email, user.email),
        cents(limit.amount_micro) if limit is not None and limit.amount_micro is not None else None,
        period,
        Source("user" if own else "organization"),
        limit.id if limit is not None and own else None,
        cents(await spent(call.database, user.id, begin)),
    )
