"""The endpoints for people: accounts, their plans and windows.

Decides which fields a call has. The rules are those of `relay.accounts`.
"""

from typing import Annotated, Final, Literal

import msgspec

from relay.accounts import periods, users, windows
from relay.provisioning.call import Call, ListPage, Reply, page, place_of
from relay.provisioning.problems import Problem, not_found
from relay.provisioning.views import Person, PlanView, person
from relay.store.balance import balance_of
from relay.store.periods import NewPeriod
from relay.store.users import User, page_of_users, user_by_id

Limit = Annotated[int, msgspec.Meta(ge=1, le=200)]
Days = Annotated[int, msgspec.Meta(ge=1, le=3660)]
Text = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
PlanId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class PeopleQuery(_Section, frozen=True):
    """`search`: only those whose address has this text."""

    limit: Limit = 50
    cursor: Annotated[str, msgspec.Meta(min_length=1, max_length=600)] | None = None
    search: Annotated[str, msgspec.Meta(min_length=1, max_length=254)] = ""


class NewPerson(_Section, frozen=True):
    """`plan`: without it, the first one of relay.toml."""

    email: Annotated[str, msgspec.Meta(min_length=3, max_length=254)]
    plan: PlanId | None = None


class Suspension(_Section, frozen=True):
    """The person reads the reason."""

    reason: Text = ""


class PlanChange(_Section, frozen=True):
    """`set`: without an end. `start`: a period from now on, whatever runs; windows begin anew.
    `extend`: the present period ends later."""

    action: Literal["set", "start", "extend"]
    plan: PlanId | None = None
    days: Days | None = None
    then: PlanId | None = None


# The fields that each action needs, and those that it takes.
_PLAN_FIELDS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "set": (("plan",), ()),
    "start": (("plan", "days"), ("then",)),
    "extend": (("days",), ()),
}


class WindowChange(_Section, frozen=True):
    """`window` is a period such as 5h, or tokens/1d. A bonus adds `amount` to each of the next
    `windows`."""

    action: Literal["reset", "bonus"]
    window: Annotated[str, msgspec.Meta(min_length=2, max_length=32)]
    amount: Annotated[int, msgspec.Meta(ge=1, le=10**12)] = 1
    windows: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1


async def found(call: Call) -> User:
    """The person whose id is in the path. Raises Problem: 404."""
    user = await user_by_id(call.database, call.path[0])
    if user is None:
        raise not_found("person")
    return user


async def _view(call: Call, user: User, status: int = 200) -> Reply:
    micro = await balance_of(call.database, user.id)
    return Reply(person(user, micro, call.now), status)


async def list_people(call: Call) -> Reply:
    """People in the order of their addresses."""
    query: PeopleQuery = call.query
    after = place_of(query.cursor)
    users_found = await page_of_users(call.database, query.limit + 1, after, query.search)
    part, cursor = page(users_found, query.limit, lambda one: one.email)
    views = [person(one, await balance_of(call.database, one.id), call.now) for one in part]
    return Reply(ListPage[Person](views, cursor))


async def create_person(call: Call) -> Reply:
    """Open an account."""
    new: NewPerson = call.body
    made = await users.create(
        call.database, call.settings, new.email, plan=new.plan, is_admin=False, now=call.now
    )
    return await _view(call, made, 201)


async def show_person(call: Call) -> Reply:
    """One account."""
    return await _view(call, await found(call))


async def suspend(call: Call) -> Reply:
    """Refuse all keys of a person until they are resumed."""
    user = await found(call)
    reason = call.body.reason
    return await _view(call, await users.suspend(call.database, user.email, call.now, reason))


async def resume(call: Call) -> Reply:
    """Accept the keys of a person again."""
    user = await found(call)
    return await _view(call, await users.resume(call.database, user.email))


async def change_plan(call: Call) -> Reply:
    """Change the plan of a person."""
    user, change = await found(call), call.body
    needed, taken = _PLAN_FIELDS[change.action]
    for name in ("plan", "days", "then"):
        is_given = getattr(change, name) is not None
        if name in needed and not is_given:
            raise Problem(400, f"The body: {change.action!r} needs {name}.")
        if is_given and name not in needed + taken:
            raise Problem(400, f"The body: {change.action!r} takes no {name}.")
    database, settings = call.database, call.settings
    if change.action == "set":
        after = await users.set_plan(database, settings, user.email, change.plan)
    elif change.action == "extend":
        seconds = change.days * 86_400
        after = await periods.extend(database, settings, user.email, seconds, call.now)
    else:
        then = change.then or periods.default_then(settings)
        new = NewPeriod(change.plan, change.days * 86_400, then, call.key.id)
        after = await periods.start(database, settings, user.email, new, call.now)
    return await _view(call, after)


async def change_window(call: Call) -> Reply:
    """Reset one window of a person, or enlarge the next ones."""
    user, change = await found(call), call.body
    database, settings = call.database, call.settings
    if change.action == "reset":
        await windows.reset_window(database, settings, user.email, change.window, call.now)
    else:
        bonus = (change.window, change.amount, change.windows)
        await windows.give_bonus(database, settings, user.email, bonus=bonus, now=call.now)
    return await _view(call, user)


async def list_plans(call: Call) -> Reply:
    """The plans of relay.toml."""
    views = [
        PlanView(
            one.id,
            one.name or one.id,
            one.billing,
            one.max_keys,
            [limit.name for limit in windows.limits_of(one)],
        )
        for one in call.settings.plan
    ]
    return Reply(ListPage[PlanView](views, None))
