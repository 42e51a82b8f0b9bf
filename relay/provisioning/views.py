"""The values of answers, for people and programs, without secrets.

Times are RFC 3339 in UTC, money is whole micro-dollars. Must not know the database.
"""

from typing import Literal

import msgspec

from relay import clock
from relay.accounts.key_rules import limit_text
from relay.store.balance import Entry
from relay.store.keys import Key
from relay.store.users import User


class Person(msgspec.Struct, frozen=True):
    """An account. `plan_until`: the end of the plan's period, after which `plan_then` follows."""

    id: str
    email: str
    plan: str
    plan_until: str | None
    plan_then: str | None
    admin: bool
    suspended_at: str | None
    suspended_reason: str
    created_at: str
    balance_micro: int


class KeyView(msgspec.Struct, frozen=True):
    """A key of a person. The key itself is in the answer to its making alone."""

    id: str
    person: str
    name: str
    hint: str
    state: Literal["live", "expired", "disabled", "revoked"]
    created_at: str
    expires_at: str | None
    models: list[str]
    addresses: list[str]
    limits: list[str]
    max_concurrency: int
    old_key_until: str | None


class IssuedKey(msgspec.Struct, frozen=True):
    """A new key, shown this once."""

    key: str
    record: KeyView


class PlanView(msgspec.Struct, frozen=True):
    """A plan of relay.toml."""

    id: str
    name: str
    billing: Literal["subscription", "per-token"]
    max_keys: int
    limits: list[str]


class EntryView(msgspec.Struct, frozen=True):
    """A movement of a balance."""

    id: int
    time: str
    kind: str
    amount_micro: int
    balance_micro: int
    request: str | None
    note: str


def moment(seconds: float | None) -> str | None:
    """Epoch seconds as text."""
    return None if seconds is None else clock.rfc3339(seconds)


def person(user: User, balance_micro: int, now: float) -> Person:
    """An account as an answer has it."""
    is_over = user.plan_until is not None and user.plan_until <= now
    return Person(
        user.id,
        user.email,
        user.plan_at(now),
        None if is_over else moment(user.plan_until),
        None if is_over else user.plan_then,
        user.is_admin,
        moment(user.suspended_at),
        user.suspended_reason,
        clock.rfc3339(user.created_at),
        balance_micro,
    )


def key_view(key: Key, now: float) -> KeyView:
    """A key as an answer has it."""
    rules = key.rules
    return KeyView(
        key.id,
        key.email,
        key.name,
        key.hint,
        key.state(now),
        clock.rfc3339(key.created_at),
        moment(key.expires_at),
        [*(rules.models or ())],
        [*(rules.addresses or ())],
        [limit_text(one) for one in rules.limits or ()],
        rules.max_concurrency,
        moment(key.old_until),
    )


def entry_view(entry: Entry) -> EntryView:
    """A movement as an answer has it."""
    return EntryView(
        entry.id,
        clock.rfc3339(entry.time),
        entry.reason or entry.kind,
        entry.amount_micro,
        entry.balance_after,
        entry.request_id or (entry.about if entry.reason == "refund" else None),
        entry.note,
    )
