"""The database: its size, requests that are deleted by hand, and backups.

None can be downloaded here: a copy has the digests of all keys and passwords, so whoever wants one
needs the machine's files, not a browser's session.
"""

import asyncio
import contextlib
import logging
import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from relay.net.off_loop import off_loop
from relay.store import latency, usage
from relay.store.database import Database, StoreError
from relay.store.scheduled_backup import BackupError, Listed, list_backups
from relay.store.space import give_back, pages
from relay.web.admin.audited import note
from relay.web.pages import Access, Pages
from relay.web.visit import Visit

if TYPE_CHECKING:
    from relay.web.site import Site

_DAY_SECONDS: Final = 86_400

_log = logging.getLogger("relay.web")


def add(site: Pages) -> None:
    """Register the pages."""
    site.get("/admin/backups", show, Access.ADMIN)
    site.post("/admin/backups", make, Access.ADMIN)
    site.post("/admin/backups/purge", purge, Access.ADMIN)


async def show(visit: Visit) -> Response:
    """All of them, the latest first, and how large everything is."""
    return await _page(visit)


async def _page(visit: Visit, status: int = 200, problem: str = "") -> Response:
    settings = visit.settings
    folder, path = settings.backup.path, settings.database.path

    def read() -> tuple[list[Listed], int | None, int | None]:
        free = log = None
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(folder).free
        with contextlib.suppress(OSError):
            log = os.path.getsize(settings.log.file) if settings.log.file else None
        return list_backups(folder), free, log

    found, free, log = await off_loop("backups", read)
    values: dict[str, Any] = {
        "backups": found[::-1],
        "free": free,
        "log": log,
        "is_purging": _is_purging(visit.site),
        "oldest": await usage.oldest(visit.database),
        "last_day": _day(visit.now - _DAY_SECONDS),
        "settings": settings.backup,
        "days": settings.database.retention_days,
        "database": path,
        "pages": await pages(visit.database),
        "state": visit.parts.operations().backups,
        "problem": problem,
    }
    return visit.render("admin/backups.html", status, **values)


def _is_purging(site: "Site") -> bool:
    return site.purging is not None and not site.purging.done()


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


async def purge(visit: Visit) -> Response:
    """Delete the requests before a day, beside the requests that are served. Sums stay."""
    try:
        day = datetime.strptime(visit.form.get("before", ""), "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return await _page(visit, 422, visit.t("admin_backups.bad_day"))
    if day.timestamp() > visit.now - _DAY_SECONDS:
        return await _page(visit, 422, visit.t("admin_backups.bad_day"))
    if _is_purging(visit.site):
        return await _page(visit, 409, visit.t("admin_backups.is_purging"))
    await note(visit, "usage.purge", "usage", None, {"before": visit.form["before"]})
    work = _purge(visit.database, day.timestamp(), visit.now)
    visit.site.purging = asyncio.get_running_loop().create_task(work)
    return visit.redirect("/admin/backups", done="purging")


async def _purge(database: Database, before: float, now: float) -> None:
    days = (now - before) / _DAY_SECONDS
    try:
        await usage.prune(database, days, now)
        await latency.prune(database, days, now)
        await give_back(database)
    except StoreError as error:
        _log.error("requests were not all deleted: %s", error)


async def make(visit: Visit) -> Response:
    """Make one now, on a thread beside the loop; one at a time."""
    site = visit.site
    if site.is_backing_up:
        return await _page(visit, 409, visit.t("admin_backups.running"))
    backups = visit.parts.operations().backups
    site.is_backing_up = True

    def work() -> str:
        try:
            return backups.make(visit.now).path.name
        finally:
            site.is_backing_up = False

    try:
        name = await off_loop("backup", work)
    except BackupError as error:
        return await _page(visit, 500, visit.words(str(error)))
    await note(visit, "backup.make", name, None, {"file": name})
    return visit.redirect("/admin/backups", done="backup_made")
