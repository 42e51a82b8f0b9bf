"""The endpoints for credit, statements, refunds and usage."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from relay.provisioning.call import Call, ListPage, Reply, page, place_of
from relay.provisioning.people import Limit, Text, found
from relay.provisioning.problems import Problem, sentence
from relay.provisioning.views import EntryView, entry_view
from relay.store import balance
from relay.store.usage import Filter, Sums, sums

_MAX = balance.MAX_CREDIT_MICRO
_WEEK_SECONDS = 7 * 86_400


class StatementQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a statement."""

    limit: Limit = 50
    cursor: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None


class NewCreditBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Below zero: it takes back what was credited by mistake."""

    amount_micro: Annotated[int, msgspec.Meta(ge=-_MAX, le=_MAX)]
    note: Text = ""


class RefundBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`request`: the id of a request that was charged."""

    request: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    note: Text = ""


class UsageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whole hours from `since` (RFC 3339; without it, a week ago) to `until`."""

    by: Literal["user", "key", "model", "day"] = "user"
    since: datetime | None = None
    until: datetime | None = None
    person: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class UsageView(msgspec.Struct, frozen=True):
    """Sums, the most requests first; by day in order."""

    data: list[Sums]


async def show_statement(call: Call) -> Reply:
    """The movements of a person's balance, newest first."""
    user, query = await found(call), call.query
    place = place_of(query.cursor)
    if (place and not place.isascii()) or (place and not place.isdigit()):
        raise Problem(400, "The cursor is none of this list.")
    before = min(int(place), 2**62) if place else None
    entries = await balance.statement(call.database, user.id, query.limit + 1, before)
    part, cursor = page(entries, query.limit, lambda one: str(one.id))
    return Reply(ListPage[EntryView]([entry_view(one) for one in part], cursor))


async def add_credit(call: Call) -> Reply:
    """Add to a person's balance."""
    user, new = await found(call), call.body
    try:
        entry = await balance.credit(call.database, user.id, new.amount_micro, new.note, call.now)
    except ValueError as error:
        raise Problem(422, sentence(error)) from None
    return Reply(entry_view(entry), 201)


async def refund(call: Call) -> Reply:
    """Give back what a request was charged, once."""
    try:
        entry = await balance.refund(call.database, call.body.request, call.body.note, call.now)
    except ValueError as error:
        raise Problem(409, sentence(error)) from None
    return Reply(entry_view(entry), 201)


async def show_usage(call: Call) -> Reply:
    """Sums of requests, tokens and cost."""
    query: UsageQuery = call.query
    since = call.now - _WEEK_SECONDS if query.since is None else _seconds(query.since)
    until = 1e11 if query.until is None else _seconds(query.until)
    which = Filter(since // 3600 * 3600, until, query.person, query.key, query.model)
    return Reply(UsageView(await sums(call.database, query.by, which)))


def _seconds(moment: datetime) -> float:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()
