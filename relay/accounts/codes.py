"""Codes that people redeem for credit or a plan, and invitations: made in batches.

Decides how a code looks, what it may bring, and the words of a refusal. A code has 80 random bits,
so that guessing one is hopeless; only its digest is kept. Must not know SQL.
"""

import csv
import io
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from relay import clock
from relay.accounts import AccountError, InvalidError, periods, users
from relay.accounts.tokens import token_digest
from relay.config import Settings
from relay.secret import Secret, digest
from relay.store import codes as stored
from relay.store.balance import MAX_CREDIT_MICRO
from relay.store.codes import Code, CodeError, Grant, NewBatch, Redemption
from relay.store.database import Database
from relay.store.periods import NewPeriod, present
from relay.store.users import User

_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # no I, L, O, U: Crockford's base 32
_GROUPS, _GROUP_LENGTH = 4, 4
_READ_AS: Final = str.maketrans("ILO", "110", " -\t\r\n")
_CSV_COLUMNS: Final = (
    "code", "id", "batch", "kind", "credit_micro", "plan", "days", "uses", "expires",
)  # fmt: skip
_MAX_NUMBER: Final = 10_000  # codes of a batch
_MAX_USES: Final = 1_000_000
_MAX_NOTE: Final = 200
_LINK_LIFETIME: Final = "7d"
_REFUSALS: Final = {
    "unknown": "This code is not known here. Look for a typing error.",
    "used": "This code has been used already.",
    "expired": "This code has expired. Ask for another one.",
    "revoked": "This code has been withdrawn. Ask for another one.",
    "again": "You have redeemed this code already.",
    "kind": "This is an invitation: it is for signing up.",
    "no_end": "The account has this plan already, and without an end. The code stays unused.",
    "other_plan": "The account has another plan, which would end; `--replace` agrees to "
    "that. The code stays unused.",
}


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The choices for a batch. `lifetime`: a duration; None: the codes do not expire."""

    number: int = 1
    uses: int = 1
    lifetime: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class MadeCode:
    """A new code with its record. Nothing else has the code itself."""

    code: Secret
    record: Code


async def create(
    database: Database, settings: Settings, grant: Grant, options: BatchOptions, now: float
) -> list[MadeCode]:
    """Make a batch of codes; they are shown now and never again.

    Raises:
        InvalidError: what they bring, their number or their lifetime is not allowed.
    """
    _check(settings, grant, options)
    expires_at = None if options.lifetime is None else now + _seconds(options.lifetime)
    texts = [_new_code() for _ in range(options.number)]
    kept = [(digest(_plain(text).encode()), f"…{text[-_GROUP_LENGTH:]}") for text in texts]
    new = NewBatch(grant, kept, options.uses, expires_at, options.note)
    records = await stored.create_batch(database, new, now)
    return [MadeCode(Secret(text), one) for text, one in zip(texts, records, strict=True)]


async def redeem(
    database: Database, user: User, code: str, now: float, *, replace: bool = False
) -> Redemption:
    """Redeem a code for a person. A plan that runs already is extended. `replace`: its plan may
    take the place of the present one; see `store.periods.outlook`.

    Raises:
        AccountError: it cannot be redeemed; the message is for its person.
    """
    agreed = present(await users.find(database, user.email), now) if replace else None
    try:
        return await stored.redeem(database, code_digest(code), user, now, agreed)
    except CodeError as error:
        raise AccountError(refusal(error)) from None


def refusal(error: CodeError) -> str:
    """The words for a person whose code is not taken."""
    return _REFUSALS[error.reason]


async def check_invitation(database: Database, code: str, now: float) -> Code:
    """An invitation that may be used now; `store.sessions.sign_up` uses it.

    Raises:
        AccountError: there is none; the message is for the person who signs up.
    """
    found = await stored.find_code(database, code_digest(code))
    if found is None:  # a link of an earlier version has a token
        found = await stored.find_code(database, token_digest(code))
    if found is None:
        raise AccountError(_REFUSALS["unknown"])
    if found.kind != "invite":
        raise AccountError("This code is not an invitation. Sign up first, then redeem it.")
    if found.state(now) != "open":
        raise AccountError(_REFUSALS[found.state(now)])
    return found


async def invite(database: Database, settings: Settings, plan: str | None, now: float) -> str:
    """A link that opens one account within a week. Raises InvalidError: there is no such plan."""
    options = BatchOptions(lifetime=_LINK_LIFETIME)
    [made] = await create(database, settings, Grant("invite", plan=plan), options, now)
    return invitation_url(settings, made)


def invitation_url(settings: Settings, made: MadeCode) -> str:
    """The page where an invitation is used. The code is in the query, which no log has."""
    return f"{settings.server.public_url.rstrip('/')}/signup?t={made.code.reveal()}"


async def revoke(database: Database, which: str, now: float) -> int:
    """Withdraw a code or a batch by its id. Raises AccountError: there is nothing to withdraw."""
    count = await stored.revoke_codes(database, which, now)
    if not count:
        raise AccountError(
            f"no code or batch {which!r} could still be redeemed; `relay code list` shows them"
        )
    return count


def code_digest(code: str) -> bytes:
    """The digest of a code as a person writes it: in any case, with spaces or dashes."""
    return digest(_plain(code).encode())


def as_csv(made: Sequence[MadeCode]) -> str:
    """New codes for a spreadsheet."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(_CSV_COLUMNS)
    for one in made:
        record = one.record
        expires = "" if record.expires_at is None else clock.rfc3339(record.expires_at)
        rows.writerow(
            [one.code.reveal(), record.id, record.batch, record.kind, record.amount_micro,
             record.plan or "", record.seconds / 86_400, record.uses, expires]
        )  # fmt: skip
    return text.getvalue()


def _check(settings: Settings, grant: Grant, options: BatchOptions) -> None:
    if not 1 <= options.number <= _MAX_NUMBER:
        raise InvalidError(f"the number of codes: from 1 to {_MAX_NUMBER:,}", "number")
    if not 1 <= options.uses <= _MAX_USES:
        raise InvalidError(f"the uses of a code: from 1 to {_MAX_USES:,} people", "uses")
    if not options.note.isprintable():
        raise InvalidError("a note has printable characters alone", "unprintable")
    if len(options.note) > _MAX_NOTE:
        raise InvalidError(f"a note has up to {_MAX_NOTE} printable characters", "note")
    if grant.kind == "credit" and not 0 < grant.amount_micro <= MAX_CREDIT_MICRO:
        dollars = MAX_CREDIT_MICRO // 10**6
        raise InvalidError(
            f"the credit of a code: more than nothing, up to {dollars:,} dollars", "amount"
        )
    if grant.kind == "plan":
        new = NewPeriod(grant.plan or "", grant.seconds, grant.plan_then or "", "")
        periods.check(settings, new)
    elif grant.plan is not None:  # of an invitation: the plan of its accounts
        users.plan_of(settings, grant.plan)


def _seconds(lifetime: str) -> int:
    try:
        return clock.seconds(lifetime)
    except ValueError as error:
        raise InvalidError(f"the lifetime of a code: {error}") from None


def _new_code() -> str:
    letters = [secrets.choice(_LETTERS) for _ in range(_GROUPS * _GROUP_LENGTH)]
    return "-".join(
        "".join(letters[start : start + _GROUP_LENGTH])
        for start in range(0, len(letters), _GROUP_LENGTH)
    )


def _plain(code: str) -> str:
    return code.upper().translate(_READ_AS)[:64]
