"""The tables of new-api, one-api, sub2api and LiteLLM, read as accounts, keys and upstreams.

Decides what a row means. Schemas: `model/user.go`, `token.go` and `channel.go` of new-api and
one-api; `backend/ent/schema/user.go`, `api_key.go` and `account.go` of sub2api; `schema.prisma` of
LiteLLM. Must not know files or the relay's database.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from relay.transfer.foreign import (
    Foreign,
    ForeignKey,
    ForeignUpstream,
    ForeignUser,
    flag,
    hashed,
    micro_dollars,
    moment,
    number,
    text,
    upstream_name,
)

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]

_ANTHROPIC: Final = "https://api.anthropic.com"
_ENABLED: Final = 1  # status of users, tokens and channels in new-api and one-api
_ADMIN_ROLE: Final = 10  # there, and above
_ANTHROPIC_CHANNEL: Final = 14
_QUOTA_PER_DOLLAR: Final = 500_000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ANY_MODEL: Final = {"", "{}", "[]", "{all-team-models}", "{all-proxy-models}"}


def new_api(tables: Tables) -> Foreign:
    """Of new-api, and of one-api, which it grew out of.

    Clients send `sk-` and the key that is stored. Quota is in units of which an option says how
    many are a dollar.
    """
    found = Foreign()
    per_dollar = _quota_per_dollar(tables.get("options", ()))
    for row in tables.get("users", ()):
        name = text(row.get("email")) or text(row.get("username"))
        if text(row.get("deleted_at")):
            found.leave_out("user", name, "deleted there")
            continue
        found.users.append(
            ForeignUser(
                ref=text(row["id"]),
                email=text(row.get("email")),
                name=text(row.get("username")),
                group=text(row.get("group")),
                suspended=number(row.get("status", _ENABLED)) != _ENABLED,
                is_admin=number(row.get("role")) >= _ADMIN_ROLE,
                balance_micro=micro_dollars(number(row.get("quota")) / per_dollar),
                created_at=moment(row.get("created_at")) or None,
            )
        )
    for row in tables.get("tokens", ()):
        _new_api_key(found, row, per_dollar)
    _new_api_upstreams(found, tables.get("channels", ()))
    return found


def _quota_per_dollar(options: Sequence[Row]) -> float:
    for row in options:
        if row.get("key") == "QuotaPerUnit" and number(row.get("value")) > 0:
            return number(row["value"])
    return _QUOTA_PER_DOLLAR


def _new_api_key(found: Foreign, row: Row, per_dollar: float) -> None:
    stored = text(row.get("key")).removeprefix("sk-")
    name = text(row.get("name")) or f"token {text(row['id'])}"
    expires = number(row.get("expired_time", -1))
    if text(row.get("deleted_at")):
        found.leave_out("key", name, "deleted there")
    elif not stored:
        found.leave_out("key", name, "it has no key")
    elif number(row.get("status", _ENABLED)) != _ENABLED:
        found.leave_out("key", name, "disabled, expired or used up there")
    else:
        bounds = []
        if flag(row.get("model_limits_enabled")) and text(row.get("model_limits")):
            bounds.append("to certain models")
        if text(row.get("allow_ips")):
            bounds.append("to certain addresses")
        if not flag(row.get("unlimited_quota")):
            dollars = number(row.get("remain_quota")) / per_dollar
            bounds.append(f"to ${dollars:.2f} of its own")
        digest, hint = hashed("sk-" + stored)
        found.keys.append(
            ForeignKey(
                owner=text(row.get("user_id")),
                name=name,
                digest=digest,
                hint=hint,
                expires_at=expires if expires > 0 else None,
                created_at=moment(row.get("created_time")) or None,
                restriction=", ".join(bounds),
            )
        )


def _new_api_upstreams(found: Foreign, channels: Sequence[Row]) -> None:
    taken: set[str] = set()
    highest = max((number(row.get("priority") or 0) for row in channels), default=0.0)
    for row in channels:
        name = text(row.get("name")) or f"channel {text(row['id'])}"
        kind = int(number(row.get("type")))
        keys = [key for key in text(row.get("key")).splitlines() if key.strip()]
        if kind != _ANTHROPIC_CHANNEL:
            found.leave_out("upstream", name, f"does not speak the Messages API (type {kind})")
        elif number(row.get("status", _ENABLED)) != _ENABLED:
            found.leave_out("upstream", name, "disabled there")
        elif not keys:
            found.leave_out("upstream", name, "it has no key")
        for key in keys if kind == _ANTHROPIC_CHANNEL and number(row.get("status", 1)) == 1 else ():
            found.upstreams.append(
                ForeignUpstream(
                    name=upstream_name(name, taken),
                    base_url=_origin(text(row.get("base_url"))),
                    api_key=key.strip(),
                    priority=int(highest - number(row.get("priority") or 0)),
                    weight=max(1, int(number(row.get("weight") or 0))),
                )
            )


def _origin(base_url: str) -> str:
    """Without the path that the relay appends itself."""
    return re.sub(r"/v1(/messages)?/?$", "", base_url).rstrip("/") or _ANTHROPIC


def sub2api(tables: Tables) -> Foreign:
    """Of sub2api, whose keys are stored as clients send them, and whose balances are dollars."""
    found = Foreign()
    groups = {text(row["id"]): text(row.get("name")) for row in tables.get("groups", ())}
    group_of_user: dict[str, str] = {}
    for row in tables.get("api_keys", ()):
        group = groups.get(text(row.get("group_id")), "")
        if group:
            group_of_user.setdefault(text(row.get("user_id")), group)
        _sub2api_key(found, row)
    for row in tables.get("users", ()):
        if text(row.get("deleted_at")):
            found.leave_out("user", text(row.get("email")), "deleted there")
            continue
        ref = text(row["id"])
        found.users.append(
            ForeignUser(
                ref=ref,
                email=text(row.get("email")),
                name=text(row.get("username")),
                group=group_of_user.get(ref, ""),
                suspended=text(row.get("status")) not in ("", "active"),
                is_admin=text(row.get("role")) == "admin",
                balance_micro=micro_dollars(row.get("balance")),
                created_at=moment(row.get("created_at")),
            )
        )
    taken: set[str] = set()
    for row in tables.get("accounts", ()):
        _sub2api_upstream(found, row, taken)
    return found


def _sub2api_key(found: Foreign, row: Row) -> None:
    key, name = text(row.get("key")), text(row.get("name")) or f"key {text(row['id'])}"
    if text(row.get("deleted_at")):
        found.leave_out("key", name, "deleted there")
    elif not key:
        found.leave_out("key", name, "it has no key")
    elif text(row.get("status")) not in ("", "active"):
        found.leave_out("key", name, f"{text(row['status'])} there")
    else:
        bounds = []
        if number(row.get("quota")) > 0:
            left = number(row.get("quota")) - number(row.get("quota_used"))
            bounds.append(f"to ${left:.2f} of its own")
        if any(
            text(row.get(name)) not in ("", "null", "[]", "{}")
            for name in ("ip_whitelist", "ip_blacklist")
        ):
            bounds.append("to certain addresses")
        digest, hint = hashed(key)
        found.keys.append(
            ForeignKey(
                owner=text(row.get("user_id")),
                name=name,
                digest=digest,
                hint=hint,
                expires_at=moment(row.get("expires_at")),
                created_at=moment(row.get("created_at")),
                restriction=", ".join(bounds),
            )
        )


def _sub2api_upstream(found: Foreign, row: Row, taken: set[str]) -> None:
    name, kind = text(row.get("name")), text(row.get("type"))
    try:
        credentials = json.loads(text(row.get("credentials")) or "{}")
    except ValueError:
        credentials = {}
    key = text(credentials.get("api_key")) if isinstance(credentials, dict) else ""
    if text(row.get("deleted_at")):
        found.leave_out("upstream", name, "deleted there")
    elif text(row.get("platform")) not in ("anthropic", "claude"):
        why = f"does not speak the Messages API ({text(row.get('platform'))})"
        found.leave_out("upstream", name, why)
    elif kind not in ("apikey", "api_key") or not key:
        found.leave_out("upstream", name, f"signed in by {kind}, and not by an API key")
    elif text(row.get("status")) not in ("", "active"):
        found.leave_out("upstream", name, f"{text(row['status'])} there")
    else:
        found.upstreams.append(
            ForeignUpstream(
                name=upstream_name(name, taken),
                base_url=_origin(text(credentials.get("base_url"))),
                api_key=key,
                priority=int(number(row.get("priority"))),
                max_concurrency=max(0, int(number(row.get("concurrency")))),
            )
        )


def litellm(tables: Tables) -> Foreign:
    """Of LiteLLM, which stores the SHA-256 of each key in hexadecimal, as the relay does."""
    found = Foreign()
    for row in tables.get("LiteLLM_UserTable", ()):
        budget = row.get("max_budget")
        left = number(budget) - number(row.get("spend")) if text(budget) else 0.0
        user_id = text(row["user_id"])
        found.users.append(
            ForeignUser(
                ref=user_id,
                email=text(row.get("user_email")) or (user_id if "@" in user_id else ""),
                name=text(row.get("user_alias")) or user_id,
                is_admin=text(row.get("user_role")).startswith("proxy_admin"),
                balance_micro=micro_dollars(max(left, 0.0)),
                created_at=moment(row.get("created_at")),
            )
        )
    for row in tables.get("LiteLLM_VerificationToken", ()):
        _litellm_key(found, row)
    for row in tables.get("LiteLLM_ProxyModelTable", ()):
        why = "its credential is encrypted there; write it into relay.toml"
        found.leave_out("upstream", text(row.get("model_name")), why)
    return found


def _litellm_key(found: Foreign, row: Row) -> None:
    token = text(row.get("token"))
    name = text(row.get("key_alias")) or text(row.get("key_name")) or token[:8]
    if flag(row.get("blocked")):
        found.leave_out("key", name, "blocked there")
        return
    if _SHA256.fullmatch(token):
        shown = text(row.get("key_name"))[-4:] or token[:4]
        digest, hint = bytes.fromhex(token), f"sk-…{shown}"
    elif token.startswith("sk-"):  # of an early version
        digest, hint = hashed(token)
    else:
        found.leave_out("key", name, "its hash is of an unknown kind")
        return
    bounds = []
    if text(row.get("models")) not in _ANY_MODEL:
        bounds.append("to certain models")
    if text(row.get("max_budget")):
        left = number(row["max_budget"]) - number(row.get("spend"))
        bounds.append(f"to ${left:.2f} of its own")
    for column in ("tpm_limit", "rpm_limit", "max_parallel_requests"):
        if text(row.get(column)):
            bounds.append(f"by {column}")
    found.keys.append(
        ForeignKey(
            owner=text(row.get("user_id")),
            name=name,
            digest=digest,
            hint=hint,
            expires_at=moment(row.get("expires")),
            created_at=moment(row.get("created_at")),
            restriction=", ".join(bounds),
        )
    )


# By the names of the command line: the tables, and their reader.
SOURCES: Final[dict[str, tuple[tuple[str, ...], Callable[[Tables], Foreign]]]] = {
    "new-api": (("users", "tokens", "channels", "options"), new_api),
    "one-api": (("users", "tokens", "channels", "options"), new_api),
    "sub2api": (("users", "api_keys", "accounts", "groups"), sub2api),
    "litellm": (
        ("LiteLLM_UserTable", "LiteLLM_VerificationToken", "LiteLLM_ProxyModelTable"),
        litellm,
    ),
}
