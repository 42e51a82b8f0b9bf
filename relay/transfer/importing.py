"""The choice of accounts, keys and credits from another relay, and their import.

Decides who gets an account, on which plan, with which keys and credit, and gives a reason for
everything else. Repeating an import adds nothing. Must not know any source's tables.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.accounts.users import is_email
from relay.config import Settings
from relay.store.database import Database
from relay.store.foreign import is_of_relay, is_sqlite
from relay.store.foreign import read_tables as read_sqlite
from relay.store.imports import Added, ImportedAccount, ImportedKey, add_accounts
from relay.transfer import TransferError
from relay.transfer.foreign import Foreign, ForeignKey, ForeignUpstream, ForeignUser
from relay.transfer.sources import SOURCES
from relay.transfer.sql_dump import read_tables as read_dump

_MAX_NAME_CHARACTERS: Final = 100
_MAX_CREDIT_MICRO: Final = 10**12


@dataclass(frozen=True, slots=True)
class Options:
    """The operator's choices."""

    source: str  # one of SOURCES
    plan: str  # for those whose group is no plan of relay.toml
    domain: str = ""  # for those without an address: NAME@DOMAIN
    restricted: bool = False  # take over keys with bounds that a key here cannot have


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table that the operator sees."""

    kind: str  # user, key, credit or upstream
    name: str
    action: str  # new, there or left out
    detail: str = ""


def read_source(source: str, path: Path) -> Foreign:
    """Read a SQLite file, or a dump of SQL text.

    Raises:
        TransferError: it cannot be read, or has none of the tables of this source.
        StoreError: SQLite cannot read it.
    """
    names, read = SOURCES[source]
    try:
        if is_sqlite(path):
            if is_of_relay(path):
                raise TransferError(
                    f"{path}: is a database of Relay, not of {source}: see `relay import relay`"
                )
            tables = read_sqlite(path, names)
        else:
            with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
                tables = read_dump(lines, names)
        if not tables:
            raise TransferError(
                f"{path}: has none of the tables of {source} ({', '.join(names)}); give its SQLite "
                "file or a dump of its database as SQL text"
            )
        return read(tables)
    except OSError as error:
        raise TransferError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise TransferError(f"{path}: {error}") from None
    except KeyError as error:
        raise TransferError(f"{path}: a table has no column {error}; is it of {source}?") from None


async def take_over(
    database: Database, settings: Settings, foreign: Foreign, options: Options, now: float,
    *, dry_run: bool,
) -> list[Line]:  # fmt: skip
    """Add the missing ones; returns a line for everything that was found.

    Raises:
        StoreError: SQLite failed, and nothing was added.
    """
    plans = {plan.id for plan in settings.plan}
    lines = [Line(one.kind, one.name, "left out", one.why) for one in foreign.left_out]
    accounts: list[ImportedAccount] = []
    emails: dict[str, str] = {}  # in lower case → the ref of its user
    refs: set[str] = set()
    by_owner: dict[str, list[ForeignKey]] = {}
    for key in foreign.keys:
        by_owner.setdefault(key.owner, []).append(key)
    for user in foreign.users:
        email = user.email
        if not email and options.domain:
            email = f"{user.name or user.ref}@{options.domain}"
        refs.add(user.ref)
        why = _refusal(email, user, emails)
        if why:
            lines.append(Line("user", user.email or user.name or user.ref, "left out", why))
            lines += _left_out(by_owner.get(user.ref, ()), "its user is left out")
            continue
        emails[email.lower()] = user.ref
        keys, refused = _usable_keys(by_owner.get(user.ref, ()), options, now)
        lines += refused
        accounts.append(
            ImportedAccount(
                email=email,
                plan=user.group if user.group in plans else options.plan,
                suspended=user.suspended,
                created_at=user.created_at or now,
                keys=tuple(keys),
                credit_micro=max(0, min(user.balance_micro, _MAX_CREDIT_MICRO)),
                note=f"balance in {options.source}, user {user.ref}",
            )
        )
    for owner, orphans in by_owner.items():
        if owner not in refs:
            lines += _left_out(orphans, "no user owns it")
    added = await add_accounts(database, accounts, now, dry_run=dry_run)
    for account, result in zip(accounts, added, strict=True):
        lines += _account_lines(account, result)
    lines += [Line("upstream", one.name, "new", one.base_url) for one in foreign.upstreams]
    return lines


def _refusal(email: str, user: ForeignUser, emails: dict[str, str]) -> str:
    if not email:
        return "it has no e-mail address; --domain DOMAIN makes one of its name"
    if not is_email(email):
        return f"{email!r} is no e-mail address"
    if email.lower() in emails:
        return f"user {emails[email.lower()]} has the same address"
    return ""


def _usable_keys(
    keys: "list[ForeignKey] | tuple[()]", options: Options, now: float
) -> tuple[list[ImportedKey], list[Line]]:
    usable, lines = [], []
    for key in keys:
        name = f"{key.name} ({key.hint})"
        if key.expires_at is not None and key.expires_at <= now:
            lines.append(Line("key", name, "left out", "it has expired"))
        elif key.restriction and not options.restricted:
            why = f"limited {key.restriction}; --restricted takes it over without that limit"
            lines.append(Line("key", name, "left out", why))
        else:
            printable = "".join(filter(str.isprintable, key.name))[:_MAX_NAME_CHARACTERS]
            created = key.created_at or now
            usable.append(ImportedKey(printable, key.digest, key.hint, created, key.expires_at))
    return usable, lines


def _left_out(keys: "list[ForeignKey] | tuple[()]", why: str) -> list[Line]:
    return [Line("key", f"{key.name} ({key.hint})", "left out", why) for key in keys]


def _account_lines(account: ImportedAccount, added: Added) -> Iterator[Line]:
    state = f"plan {account.plan}" + (", suspended" if account.suspended else "")
    yield Line("user", account.email, *(("new", state) if added.account else ("there", "")))
    for key in account.keys:
        name = f"{key.name} ({key.hint})"
        if key.digest in added.taken:
            yield Line("key", name, "left out", "another account here has it")
        else:
            yield Line("key", name, "new" if key.digest in added.keys else "there", account.email)
    if account.credit_micro:
        amount = f"${account.credit_micro / 10**6:,.2f}"
        yield Line("credit", account.email, "new" if added.credit else "there", amount)


def upstreams_toml(upstreams: list[ForeignUpstream]) -> str:
    """The `[[upstream]]` sections for relay.toml. They hold the API keys."""
    sections = []
    for one in upstreams:
        section = {
            "name": one.name,
            "base_url": one.base_url,
            "api_key": one.api_key,
            "auth": one.auth,
            "priority": one.priority,
            "weight": one.weight,
            "max_concurrency": one.max_concurrency,
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in section.items()]
        sections.append("\n".join(["[[upstream]]", *lines, ""]))
    return "\n".join(sections)
