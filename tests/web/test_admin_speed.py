"""How long the administrators' pages take with 10,000 people and a million requests."""

import statistics

import pytest

from relay.store import request_log
from tests.fakes.live import Live
from tests.web.administration import add_people
from tests.web.seed import seed_usage
from tests.web.visitor import Visitor

PEOPLE, ROWS = 10_000, 1_000_000
MOST_SECONDS = 0.05
PATHS = (
    "/admin", "/admin/people", "/admin/people?order=cost", "/admin/people?order=requests&page=150",
    "/admin/people?q=person0999", "/admin/people?order=balance", "/admin/upstreams",
    "/admin/models", "/admin/live", "/admin/failures", "/admin/audit", "/admin/codes",
    "/admin/backups", "/admin/settings", "/admin/people/usr_0000000000000001",
    "/admin/simulator?model=sonnet&who=person00001@example.org",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.alone
async def test_pages_take_50_ms_with_a_million_requests(relay: Live, admin: Visitor) -> None:
    owners = await add_people(relay, PEOPLE)
    await seed_usage(relay.app.database, owners, ROWS, days=80)
    while await request_log.advance(relay.app.database):
        pass
    figures = {}
    for path in PATHS:
        times = []
        for _ in range(7):
            assert (await admin.get(path)).status_code == 200
            line = [one for one in relay.log() if one["path"] == path.partition("?")[0]][-1]
            times.append(line["us"] / 1e6)
        figures[path] = statistics.median(times)
        print(f"{figures[path] * 1000:7.1f} ms  {path}")
    assert {path: took for path, took in figures.items() if took > MOST_SECONDS} == {}
