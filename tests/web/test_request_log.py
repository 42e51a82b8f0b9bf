"""The log of a person's requests, its exports, and the charts of usage."""

import csv
import io
import json
import re
import time
from typing import Any

import pytest

from relay.store import latency, request_log
from relay.store.request_log import RequestFilter, advance, behind, own_requests
from relay.store.usage import prune
from relay.store.users import find_user
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.web.conftest import NewVisitor
from tests.web.seed import seed_usage
from tests.web.visitor import WEB, Visitor, ask, cells, owner, until_logged

# --- requests ---


async def test_a_request_is_in_the_log_with_its_rule(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    key = await visitor.new_key("laptop")
    assert await ask(site, key) == [200]
    assert site.simulator is not None
    await until_logged(site, 1)
    [_, row] = cells((await visitor.get("/dashboard/requests")).text)
    assert "claude-sonnet-4-7 laptop" in row
    assert "Complete as reported" in row


async def test_a_failed_request_shows_its_reason(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    live = await relay_with("http://127.0.0.1:9", web=WEB, pool={"wait": 0, "tries": 1})
    visitor = another(live)
    await visitor.sign_up()
    key = await visitor.new_key()
    [status] = await ask(live, key)
    assert status >= 500
    await until_logged(live, 1)
    [_, row] = cells((await visitor.get("/dashboard/requests?failed=1")).text)
    outcome = live.log()[-1]["outcome"]
    assert " ".join(outcome.partition(": ")[2].split()) in row or str(status) in row
    assert "free: given back" in row


@pytest.fixture
async def seeded(site: Live, visitor: Visitor) -> Visitor:
    """A visitor with 400 requests, beside another account's 400."""
    await visitor.sign_up()
    await visitor.new_key("laptop")
    other = await find_user(site.app.database, EMAIL)
    assert other is not None
    mine = await owner(site, visitor)
    await seed_usage(site.app.database, [mine, (other.id, "key_of_somebody")], 800)
    return visitor


async def numbers(live: Live, user_id: str, which: RequestFilter | None = None) -> list[int]:
    """All numbers of the log, page by page."""
    found: list[int] = []
    before: int | None = 2**62
    while before is not None:
        page = await own_requests(live.app.database, user_id, which or RequestFilter(), 37, before)
        found += [row.number for row in page.rows]
        before = page.before
    return found


async def test_pages_of_the_log_are_complete_and_in_order(site: Live, seeded: Visitor) -> None:
    user_id, _ = await owner(site, seeded)
    rows = await site.app.database.select(
        "SELECT number FROM usage WHERE user_id = ? ORDER BY number DESC", (user_id,)
    )
    expected = [number for (number,) in rows]
    await site.app.database.write(lambda c: c.execute("DELETE FROM usage_of"))
    await site.app.database.write(lambda c: c.execute("UPDATE usage_indexed SET upto = 0"))
    assert await numbers(site, user_id) == expected  # nothing is indexed
    while await advance(site.app.database, 100):
        assert await numbers(site, user_id) == expected
    assert await behind(site.app.database) == 0
    assert await numbers(site, user_id) == expected


async def test_filters_find_what_they_name(site: Live, seeded: Visitor) -> None:
    user_id, key_id = await owner(site, seeded)

    async def expected(condition: str) -> list[int]:
        rows = await site.app.database.select(
            f"SELECT number FROM usage WHERE user_id = ? AND {condition} ORDER BY number DESC",
            (user_id,),
        )
        return [number for (number,) in rows]

    opus = RequestFilter(model="claude-opus-4-8")
    assert await numbers(site, user_id, opus) == await expected("model = 'claude-opus-4-8'")
    failed = RequestFilter(failed=True)
    assert await numbers(site, user_id, failed) == await expected("outcome <> 'whole'")
    since = time.time() - 86_400
    late = RequestFilter(since=since, key_id=key_id)
    assert await numbers(site, user_id, late) == await expected(f"time >= {since}")
    assert await numbers(site, user_id, RequestFilter(key_id="key_none")) == []


async def test_a_search_for_something_rare_goes_on_page_by_page(
    site: Live, seeded: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id, _ = await owner(site, seeded)
    monkeypatch.setattr(request_log, "_MAX_SEARCHED", 7)
    rows = await site.app.database.select(
        "SELECT number FROM usage WHERE user_id = ? AND outcome <> 'whole' ORDER BY 1 DESC",
        (user_id,),
    )
    expected = [number for (number,) in rows]
    while await advance(site.app.database):
        pass
    assert await numbers(site, user_id, RequestFilter(failed=True)) == expected
    assert await numbers(site, user_id, RequestFilter(model="none")) == []


async def test_pruned_requests_leave_the_log(site: Live, seeded: Visitor) -> None:
    user_id, _ = await owner(site, seeded)
    while await advance(site.app.database):
        pass
    assert await prune(site.app.database, 3, time.time()) > 300
    rows = await site.app.database.select("SELECT user_id, number FROM usage ORDER BY 2")
    left = [number for user, number in rows if user == user_id]
    assert await numbers(site, user_id) == left[::-1]
    kept = await site.app.database.select("SELECT user_id, number FROM usage_of ORDER BY 2")
    assert kept == rows


async def test_older_requests_come_as_rows_or_as_a_page(seeded: Visitor) -> None:
    page = (await seeded.get("/dashboard/requests")).text
    [link] = re.findall(r'hx-get="([^"]+)"', page)
    assert f'href="{link}"' in page
    part = (await seeded.get(link, headers={"hx-request": "true"})).text
    complete = (await seeded.get(link)).text
    assert "<html" not in part
    assert cells(part) == cells(complete)[1:]
    assert len(re.findall("<tr>", part)) == 50


async def test_the_csv_has_every_request(site: Live, seeded: Visitor) -> None:
    user_id, _ = await owner(site, seeded)
    await site.app.database.write(
        lambda c: c.execute("UPDATE usage SET model = '=1+1' WHERE number % 50 = 0")
    )
    answer = await seeded.get("/dashboard/requests.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == len(await numbers(site, user_id))
    assert {row["model"] for row in rows} >= {"'=1+1", "claude-opus-4-8"}
    assert rows[0]["key"] == "laptop"
    sums = await site.app.database.select(
        "SELECT sum(cost_micro), sum(input) FROM usage WHERE user_id = ?", (user_id,)
    )
    assert sum(round(float(row["cost_usd"]) * 10**6) for row in rows) == sums[0][0]
    assert sum(int(row["input"]) for row in rows) == sums[0][1]
    filtered = await seeded.get("/dashboard/requests.csv?model=claude-opus-4-8")
    models = {row["model"] for row in csv.DictReader(io.StringIO(filtered.text))}
    assert models == {"claude-opus-4-8"}


async def test_the_export_has_all_of_the_account(site: Live, seeded: Visitor) -> None:
    answer = await seeded.get("/account/export.json")
    document = json.loads(answer.content)
    assert document["account"]["email"] == "grace@example.com"
    assert [key["name"] for key in document["keys"]] == ["laptop"]
    assert len(document["sessions"]) == 1
    user_id, _ = await owner(site, seeded)
    assert [one["number"] for one in document["requests"]] == await numbers(site, user_id)
    assert {one["user_id"] for one in document["requests"]} == {user_id}
    assert sum(one["requests"] for one in document["usage_by_day"]) == len(document["requests"])
    assert document["statement"] == []


# --- usage ---


@pytest.mark.parametrize("by", ["model", "key", "none"])
@pytest.mark.parametrize("range_", ["24h", "7d", "90d"])
async def test_charts_add_up_to_the_table(seeded: Visitor, by: str, range_: str) -> None:
    page = (await seeded.get(f"/dashboard/usage?range={range_}&by={by}")).text
    queries = [query.replace("&amp;", "&") for query in re.findall(r'data-query="([^"]+)"', page)]
    assert len(set(queries)) == 1
    foot = re.search(r"<tfoot>(.*?)</tfoot>", page, re.DOTALL)
    assert foot is not None
    sums = re.findall(r"<td[^>]*>([^<]*)</td>", foot[1])
    data = (await seeded.get(f"/dashboard/usage/data?metric=requests&{queries[0]}")).json()
    total = sum(sum(group["values"]) for group in data["groups"])
    assert f"{total:,}" == sums[0]
    assert all(len(group["values"]) == len(data["times"]) for group in data["groups"])
    assert data["step"] == (3600 if range_ == "24h" else 86_400)
    tokens = (await seeded.get(f"/dashboard/usage/data?metric=tokens&{queries[0]}")).json()
    shown = sum(int(sums[place].replace(",", "")) for place in (1, 2, 3, 4))
    assert sum(sum(group["values"]) for group in tokens["groups"]) == shown


async def test_more_groups_than_colours_are_one(site: Live, seeded: Visitor) -> None:
    user_id, key_id = await owner(site, seeded)
    hour = int(time.time()) // 3600 * 3600

    def work(connection: Any) -> None:
        connection.executemany(
            "INSERT INTO usage_hour VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, 0)",
            [(hour, user_id, key_id, f"model-{n}", n + 1) for n in range(12)],
        )

    await site.app.database.write(work)
    data = (await seeded.get("/dashboard/usage/data?metric=requests&range=24h&by=model")).json()
    assert len(data["groups"]) == 8
    assert data["groups"][-1]["name"] == "All others"


@pytest.mark.parametrize("metric", ["first", "whole"])
async def test_durations_are_shown_by_quantile(site: Live, seeded: Visitor, metric: str) -> None:
    await latency.sum_up(site.app.database)
    path = f"/dashboard/usage/data?metric={metric}&range=24h"
    data = (await seeded.get(path)).json()
    assert [group["name"] for group in data["groups"]] == ["Median", "95 %"]
    rows = [group["values"] for group in data["groups"]]
    seen = [values for values in zip(*rows, strict=True) if None not in values]
    assert seen
    most = 2.0 if metric == "first" else 30.0
    assert all(0.2 < median <= p95 <= most for median, p95 in seen)
    assert (await seeded.get(path + "&model=none")).json()["groups"] == []


async def test_charts_and_sums_have_filters(site: Live, seeded: Visitor) -> None:
    _, key_id = await owner(site, seeded)
    query = f"range=7d&by=model&key={key_id}&model=claude-opus-4-8"
    page = (await seeded.get(f"/dashboard/usage?{query}")).text
    assert [row.split()[0] for row in cells(page)][1:] == ["claude-opus-4-8", "Sum"]
    data = (await seeded.get(f"/dashboard/usage/data?metric=tokens&{query}")).json()
    assert [group["name"] for group in data["groups"]] == ["claude-opus-4-8"]
    other = f"/dashboard/usage?range=7d&key={key_id[:-1]}"
    assert "No usage in this time." in (await seeded.get(other)).text


async def test_a_range_of_days_includes_its_last(seeded: Visitor) -> None:
    today = time.strftime("%Y-%m-%d", time.gmtime())
    page = (await seeded.get(f"/dashboard/usage?from={today}&to={today}")).text
    assert f"{today} to {today}, UTC" in page
    assert "claude-sonnet-4-7" in page
