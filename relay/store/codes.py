"""Codes in the database: made in batches, redeemed once by a person, revoked.

Only the SHA-256 of a code is kept. Each redemption and what it brings are one transaction. Must
not know which plans exist, or how a code looks.
"""

import sqlite3
from typing import Any, Final, Literal

import msgspec

from relay.store import balance, periods
from relay.store.audit import Change, record
from relay.store.balance import NewCredit
from relay.store.claims import ClaimError
from relay.store.database import Database
from relay.store.periods import NewPeriod, Present
from relay.store.users import User, new_id, select_user

Kind = Literal["credit", "plan", "invite"]
_COLUMNS: Final = """id, batch, hint, kind, amount_micro, plan, seconds, plan_then, uses, used,
    note, created_at, expires_at, revoked_at"""


class Grant(msgspec.Struct, frozen=True):
    """The value of a code: credit, a plan for a time, or an account."""

    kind: Kind
    amount_micro: int = 0
    plan: str | None = None
    seconds: int = 0
    plan_then: str | None = None


class Code(msgspec.Struct, frozen=True):
    """A code as it is listed; times are epoch seconds."""

    id: str
    batch: str
    hint: str
    kind: Kind
    amount_micro: int
    plan: str | None
    seconds: int
    plan_then: str | None
    uses: int  # by how many people
    used: int
    note: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    @property
    def period(self) -> NewPeriod:
        """The period that a code for a plan brings."""
        assert self.plan is not None
        return NewPeriod(self.plan, self.seconds, self.plan_then or self.plan, self.id)

    def state(self, now: float) -> str:
        """`open`, `used`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.used >= self.uses:
            return "used"
        is_over = self.expires_at is not None and self.expires_at <= now
        return "expired" if is_over else "open"


class NewBatch(msgspec.Struct, frozen=True):
    """Codes to be added: digests with hints. The codes themselves are not in it."""

    grant: Grant
    codes: list[tuple[bytes, str]]
    uses: int
    expires_at: float | None
    note: str


class Redemption(msgspec.Struct, frozen=True):
    """The result of a redemption. `extended`: its plan went on; else it began anew."""

    code: Code
    balance_micro: int | None = None
    plan_until: float | None = None
    extended: bool = False


class CodeError(Exception):
    """The code cannot be redeemed: `unknown`, `used`, `expired`, `revoked`, `again` or `kind`; or
    its plan would take the present one (`other_plan`) or give nothing (`no_end`)."""

    def __init__(self, reason: str, code: Code | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


async def create_batch(database: Database, new: NewBatch, now: float) -> list[Code]:
    """Add codes, all or none. Raises StoreError: SQLite failed."""
    batch, grant = new_id("batch"), new.grant

    def work(connection: sqlite3.Connection) -> list[Code]:
        made = []
        for digest, hint in new.codes:
            code = Code(
                new_id("code"), batch, hint, grant.kind, grant.amount_micro, grant.plan,
                grant.seconds, grant.plan_then, new.uses, 0, new.note, now, new.expires_at, None,
            )  # fmt: skip
            connection.execute(
                f"INSERT INTO code (digest, {_COLUMNS}) VALUES (?{', ?' * 14})",  # noqa: S608
                (digest, *msgspec.structs.astuple(code)),
            )
            made.append(code)
        after = {"number": len(made), "uses": new.uses, **msgspec.to_builtins(grant)}
        record(connection, database.actor, now, Change("code.create", batch, None, after))
        return made

    return await database.write(work)


async def list_codes(
    database: Database, batch: str | None = None, limit: int = 1000, after: str = ""
) -> list[Code]:
    """The codes of a batch, or all, newest first; `after` is the id that ended the last page."""
    rows = await database.select(
        f"""SELECT {_COLUMNS} FROM code WHERE (?1 IS NULL OR batch = ?1)
            AND rowid < coalesce((SELECT rowid FROM code WHERE id = ?2), 9e18)
            ORDER BY rowid DESC LIMIT ?3""",  # noqa: S608
        (batch, after, limit),
    )
    return [Code(*row) for row in rows]


async def revoke_codes(database: Database, which: str, now: float) -> int:
    """Revoke a code or a batch by its id; returns the number of codes that could be redeemed.

    Raises:
        StoreError: SQLite failed.
    """

    def work(connection: sqlite3.Connection) -> int:
        count = connection.execute(
            """UPDATE code SET revoked_at = ?1
               WHERE (id = ?2 OR batch = ?2) AND revoked_at IS NULL AND used < uses""",
            (now, which),
        ).rowcount
        if count:
            change = Change("code.revoke", which, None, {"number": count})
            record(connection, database.actor, now, change)
        return count

    return await database.write(work)


async def redeem(
    database: Database, digest: bytes, user: User, now: float, agreed: Present | None = None
) -> Redemption:
    """Redeem a code for a person, with all that it brings, in one transaction. `agreed`: the plan
    that they agree to give up for that of the code.

    Raises:
        CodeError: it cannot be redeemed, and nothing has changed.
        StoreError: SQLite failed, or another node redeems the code now; nothing has changed.
    """
    seen = await find_code(database, digest)
    if seen is None:
        raise CodeError("unknown")

    def work(connection: sqlite3.Connection) -> Redemption:
        check_turn(database, connection, seen)
        code = use(connection, _find(connection, digest), user.id, now)
        if code.kind == "invite":
            raise CodeError("kind", code)
        after: dict[str, Any] = {"user": user.id, "kind": code.kind}
        record(connection, database.actor, now, Change("code.redeem", code.id, None, after))
        if code.kind == "credit":
            about = f"{code.id}/{user.id}"
            new = NewCredit(user.id, code.amount_micro, code.note, "redemption", about)
            entry = balance.add_credit(connection, database.actor, new, now)
            return Redemption(code, balance_micro=entry.balance_after)
        present = select_user(connection, user.email)
        assert present is not None
        done = periods.grant(connection, database.actor, present, code.period, agreed, now)
        if done is None:
            found = periods.outlook(present, code.period, now)
            raise CodeError("no_end" if found.kind == "nothing" else "other_plan", code)
        return Redemption(code, plan_until=done[0].plan_until, extended=done[1])

    async with database.claims.once(*turn_of(seen)):
        return await database.write(work)


def turn_of(code: Code) -> tuple[str, str]:
    """The claim on the next use of a code: of nodes that have seen the same uses, one gets it."""
    return "code", f"{code.id}/{code.used}"


def check_turn(database: Database, connection: sqlite3.Connection, seen: Code) -> None:
    """Check within the transaction that the use which was claimed is the next one still.

    Raises:
        ClaimError: it is not.
    """
    if database.claims.are_needed:
        row = connection.execute("SELECT used FROM code WHERE id = ?", (seen.id,)).fetchone()
        if row is not None and row[0] != seen.used:
            raise ClaimError("somebody else redeems this code: try again in a moment")


def use(connection: sqlite3.Connection, code: Code | None, user_id: str, now: float) -> Code:
    """Use a code for a person, within a transaction that has read it.

    Raises:
        CodeError: it cannot be used.
    """
    if code is None:
        raise CodeError("unknown")
    again = connection.execute(
        "SELECT 1 FROM redemption WHERE code_id = ? AND user_id = ?", (code.id, user_id)
    ).fetchone()
    if again is not None:
        raise CodeError("again", code)
    state = code.state(now)
    if state != "open":
        raise CodeError(state, code)
    connection.execute("UPDATE code SET used = used + 1 WHERE id = ?", (code.id,))
    connection.execute("INSERT INTO redemption VALUES (?, ?, ?)", (code.id, user_id, now))
    return code


def use_invitation(
    connection: sqlite3.Connection, invitation: Code, user_id: str, now: float
) -> None:
    """Use an invitation in the transaction that makes the account. Raises CodeError."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM code WHERE id = ? AND kind = 'invite'",  # noqa: S608
        (invitation.id,),
    ).fetchone()
    use(connection, None if row is None else Code(*row), user_id, now)


async def find_code(database: Database, digest: bytes) -> Code | None:
    """The code with this digest; None if there is none."""
    rows = await database.select(f"SELECT {_COLUMNS} FROM code WHERE digest = ?", (digest,))  # noqa: S608
    return Code(*rows[0]) if rows else None


def _find(connection: sqlite3.Connection, digest: bytes) -> Code | None:
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM code WHERE digest = ?",  # noqa: S608
        (digest,),
    ).fetchone()
    return None if row is None else Code(*row)
