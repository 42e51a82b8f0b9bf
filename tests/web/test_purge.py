"""Requests that an administrator deletes by hand."""

import time

import pytest

from relay.store import usage
from tests.fakes.live import EMAIL, Live
from tests.fakes.until import until
from tests.web.administration import id_of, last_entry
from tests.web.seed import seed_usage
from tests.web.visitor import Visitor

DAY = 86_400


async def test_requests_before_a_day_are_deleted(relay: Live, admin: Visitor) -> None:
    database = relay.app.database
    await seed_usage(database, [(await id_of(relay, EMAIL), "key_1")], 900, days=9)
    before = sum(one.requests for one in await usage.sums(database, "day"))
    day = time.time() // DAY * DAY - 3 * DAY
    text = time.strftime("%Y-%m-%d", time.gmtime(day))
    answer = await admin.submit("/admin/backups", "/admin/backups/purge", before=text)
    assert answer.headers["location"] == "/admin/backups?done=purging"
    entry = await last_entry(relay)
    assert (entry.action, entry.after) == ("usage.purge", {"before": text})
    site = relay.app.web.site
    assert site is not None
    await until(lambda: site.purging is not None and site.purging.done())
    [[first, number]] = await database.select("SELECT min(time), count(*) FROM usage")
    assert first >= day
    assert 290 <= number <= 400
    assert sum(one.requests for one in await usage.sums(database, "day")) == before
    assert "Oldest request" in (await admin.get("/admin/backups")).text


@pytest.mark.parametrize("text", ["", "x", "2026-13-01", time.strftime("%Y-%m-%d"), "9999-01-01"])
async def test_today_is_never_deleted(relay: Live, admin: Visitor, text: str) -> None:
    answer = await admin.submit("/admin/backups", "/admin/backups/purge", before=text)
    assert answer.status_code == 422
    site = relay.app.web.site
    assert site is not None
    assert site.purging is None
