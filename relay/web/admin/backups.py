"""Backups of the database: which there are, and one more.

None can be downloaded here: a copy has the digests of all keys and passwords, so whoever wants one
needs the machine's files, not a browser's session.
"""

import shutil
from typing import Any

from starlette.responses import Response

from relay.net.off_loop import off_loop
from relay.store.scheduled_backup import BackupError, Listed, list_backups
from relay.store.space import pages
from relay.web.admin.audited import note
from relay.web.pages import Access, Pages
from relay.web.visit import Visit


def add(site: Pages) -> None:
    """Register the pages."""
    site.get("/admin/backups", show, Access.ADMIN)
    site.post("/admin/backups", make, Access.ADMIN)


async def show(visit: Visit) -> Response:
    """All of them, the latest first, and how large everything is."""
    return await _page(visit)


async def _page(visit: Visit, status: int = 200, problem: str = "") -> Response:
    settings = visit.settings
    folder, path = settings.backup.path, settings.database.path

    def read() -> tuple[list[Listed], int | None]:
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            free = None
        return list_backups(folder), free

    found, free = await off_loop("backups", read)
    values: dict[str, Any] = {
        "backups": found[::-1],
        "free": free,
        "settings": settings.backup,
        "days": settings.database.retention_days,
        "database": path,
        "pages": await pages(visit.database),
        "state": visit.parts.operations().backups,
        "problem": problem,
    }
    return visit.render("admin/backups.html", status, **values)


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
        return await _page(visit, 500, str(error))
    await note(visit, "backup.make", name, None, {"file": name})
    return visit.redirect("/admin/backups", done="backup_made")
