"""Columns that a person hides stay hidden, in the tables that have a choice."""

import re

import pytest

from relay.web import columns
from tests.fakes.live import Live
from tests.web.conftest import NewVisitor
from tests.web.seed import seed_usage
from tests.web.visitor import Visitor, owner


@pytest.mark.parametrize(
    ("cookie", "hidden"),
    [
        ("", {}),
        ("requests-2-5", {"requests": (2, 5)}),
        ("requests-5-2.people-7", {"requests": (2, 5), "people": (7,)}),
        ("requests-2-9", {"requests": (2,)}),
        ("requests-1", {}),
        ("nothing-2", {}),
        ("requests-", {}),
        ("." * 300, {}),
        ("requests-2<script>", {}),
    ],
)
def test_a_cookie_is_read_for_what_it_is(cookie: str, hidden: columns.Hidden) -> None:
    assert columns.read(cookie) == hidden
    assert columns.read(columns.write(hidden)) == hidden


async def test_a_choice_is_kept_for_each_table(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    await visitor.new_key()
    await seed_usage(site.app.database, [await owner(site, visitor)], 50)
    token = await visitor.form("/dashboard/requests", "/preferences")
    for table, shown in (("requests", (2, 3, 6)), ("usage", (3,))):
        fields = {**token, "table": table, **{f"c{one}": "1" for one in shown}}
        answer = await visitor.post("/preferences", data={**fields, "back": "/dashboard/requests"})
        assert answer.headers["location"] == "/dashboard/requests"
    requests = (await visitor.get("/dashboard/requests")).text
    assert 'class="rows requests hide-4 hide-5"' in requests
    assert re.findall(r'name="c(\d)" value="1"( checked)?', requests) == [
        ("2", " checked"), ("3", " checked"), ("4", ""), ("5", ""), ("6", " checked"),
    ]  # fmt: skip
    usage = (await visitor.get("/dashboard/usage")).text
    assert 'class="rows hide-2 hide-4 hide-5 hide-6 hide-7 hide-8"' in usage


async def test_administrators_have_it_too(relay: Live, admin: Visitor) -> None:
    token = await admin.form("/admin/people", "/preferences")
    await admin.post("/preferences", data={**token, "table": "people", "c2": "1"})
    page = (await admin.get("/admin/people")).text
    assert "hide-3 hide-4 hide-5 hide-6 hide-7" in page


async def test_each_table_has_as_many_columns(
    relay: Live, admin: Visitor, another: NewVisitor
) -> None:
    await admin.new_key()
    await seed_usage(relay.app.database, [await owner(relay, admin)], 30)
    for table, path in (
        ("requests", "/dashboard/requests"), ("usage", "/dashboard/usage"),
        ("people", "/admin/people"), ("all_requests", "/admin/failures"),
    ):  # fmt: skip
        page = (await admin.get(path)).text
        head = re.findall(r"<thead>(.*?)</thead>", page, re.DOTALL)[-1]
        assert len(re.findall("<th[ >]", head)) == columns.TABLES[table], table
