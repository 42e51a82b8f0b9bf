"""Upstreams as a file: taken out with or without secrets, put in after a look at the difference.

Decides what needs the password once more: secrets that leave, and a change of the file. Must not
know how tables are written.
"""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from starlette.responses import Response

from relay.config import ConfigError, masked_upstream
from relay.net.off_loop import off_loop
from relay.transfer import TransferError, settings_file
from relay.transfer.settings_file import ChangedMeanwhileError, NotWritableError
from relay.transfer.upstream_tables import Table, as_toml, merged, read_tables, rewritten
from relay.web.admin.audited import note
from relay.web.pages import Access, Pages
from relay.web.parts import Changes, Reloading
from relay.web.proof import has_password, prove
from relay.web.visit import Visit

_PAGE: Final = "/admin/upstreams/import"
_TYPES: Final = {"toml": "application/toml", "json": "application/json"}


@dataclass(frozen=True, slots=True)
class Plan:
    """An import that is ready: the file's text before and after, and what a reload would change."""

    before: str
    after: str
    changes: Changes
    names: dict[str, list[str]]  # added, changed, removed


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get(_PAGE, show, Access.ADMIN)
    pages.post(_PAGE, put_in, Access.ADMIN)
    pages.get("/admin/upstreams/export.{form}", take_out, Access.ADMIN)
    pages.post("/admin/upstreams/export.{form}", take_out_secrets, Access.ADMIN)


async def show(visit: Visit) -> Response:
    """The forms."""
    return await _page(visit)


async def _page(visit: Visit, status: int = 200, **values: Any) -> Response:
    path = Path(_reloading(visit).path)
    shown: dict[str, Any] = {
        "text": "", "only": False, "problem": "", "export_problem": "", "changes": None,
        "is_new": False, "paste": "", **values,
    }  # fmt: skip
    return visit.render(
        "admin/upstream_transfer.html",
        status,
        file=path,
        is_writable=await off_loop("settings", lambda: settings_file.is_writable(path)),
        has_password=await has_password(visit),
        **shown,
    )


def _reloading(visit: Visit) -> Reloading:
    reloading = visit.parts.operations().reloading
    if reloading is None:
        visit.refuse(404, "no_file")
    return reloading


# --- out ---


async def take_out(visit: Visit) -> Response:
    """All upstreams as the file has them, without literal secrets."""
    return await _export(visit, masked_upstream)


async def take_out_secrets(visit: Visit) -> Response:
    """All upstreams with their secrets, for whoever knows the password."""
    problem = await prove(visit)
    if problem:
        return await _page(visit, 422, export_problem=problem)
    answer = await _export(visit, dict)
    await note(visit, "upstream.export", "relay.toml", None, {"secrets": True})
    return answer


async def _export(visit: Visit, mask: Callable[[Table], Table]) -> Response:
    form = visit.request.path_params["form"]
    if form not in _TYPES:
        visit.refuse(404, "not_found")
    path = Path(_reloading(visit).path)

    def read() -> str:
        tables = [mask(one) for one in _tables(settings_file.read(path))]
        if form == "toml":
            return as_toml(tables)
        return json.dumps({"upstream": tables}, indent=2, ensure_ascii=False) + "\n"

    try:
        text = await off_loop("settings", read)
    except TransferError as error:
        return await _page(visit, 422, export_problem=visit.words(str(error)))
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    disposition = f'attachment; filename="upstreams-{day}.{form}"'
    return Response(text, media_type=_TYPES[form], headers={"content-disposition": disposition})


def _tables(text: str) -> list[Table]:
    """The upstreams of a relay.toml. Raises TransferError: it is no TOML."""
    try:
        tables: list[Table] = tomllib.loads(text).get("upstream", [])
    except tomllib.TOMLDecodeError as error:
        raise TransferError(f"relay.toml is no valid TOML: {error}") from None
    return tables


# --- in ---


async def put_in(visit: Visit) -> Response:
    """Show what an import would change, or with the password write it and put it into force."""
    text, only = visit.form.get("text", ""), bool(visit.form.get("only"))
    values: dict[str, Any] = {"text": text, "only": only}
    reloading = _reloading(visit)
    path = Path(reloading.path)
    try:
        given = read_tables(text)
        plan = await _plan(reloading, given, only=only)
    except (TransferError, ConfigError) as error:
        words = reloading.words(error) if isinstance(error, ConfigError) else str(error)
        return await _page(visit, 422, problem=visit.words(words), **values)
    values |= {"changes": plan.changes, "is_new": plan.after != plan.before}
    if "write" not in visit.form:
        return await _page(visit, paste=as_toml(given), **values)
    problem = await prove(visit)
    if problem:
        return await _page(visit, 422, problem=problem, **values)
    try:
        await off_loop("settings", lambda: settings_file.replace(path, plan.after, plan.before))
    except ChangedMeanwhileError:
        problem = visit.t("admin_transfer.changed_meanwhile")
        return await _page(visit, 409, problem=problem, **values)
    except NotWritableError as error:
        return await _page(
            visit, 422, problem=visit.words(str(error)), paste=as_toml(given), **values
        )
    await note(visit, "upstream.import", "relay.toml", None, dict(plan.names))
    try:
        await reloading.reload(visit.actor)
    except ConfigError as error:  # a file that it names has changed in this moment
        return await _page(visit, 422, problem=visit.words(reloading.words(error)), **values)
    return visit.redirect("/admin/upstreams", done="upstreams_imported")


async def _plan(reloading: Reloading, given: list[Table], *, only: bool) -> Plan:
    """What an import comes to. Raises TransferError, ConfigError: it cannot be done."""

    def read() -> tuple[str, str, dict[str, list[str]]]:
        before = settings_file.read(Path(reloading.path))
        present = _tables(before)
        tables = merged(present, given, masked_upstream, only=only)
        old, new = ({one["name"]: one for one in part} for part in (present, tables))
        names = {
            "added": [name for name in new if name not in old],
            "changed": [name for name in new if name in old and new[name] != old[name]],
            "removed": [name for name in old if name not in new],
        }
        return before, rewritten(before, tables), names

    before, after, names = await off_loop("settings", read)
    return Plan(before, after, await reloading.compare(after), names)
