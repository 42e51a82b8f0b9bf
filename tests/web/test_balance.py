"""The balance: codes are redeemed, and the statement agrees with it."""

import csv
import io
import re
import time

from relay.accounts import codes
from relay.store.balance import balance_of, credit, refund
from relay.store.codes import Grant
from relay.store.users import find_user
from relay.web.security import LANGUAGE_COOKIE
from tests.fakes.live import Live, RelayWith
from tests.web.administration import MODELS, PLANS
from tests.web.conftest import NewVisitor
from tests.web.visitor import WEB, Visitor, ask, cells, until_logged

PAGE, REDEEM = "/dashboard/balance", "/dashboard/balance/redeem"
TEAM = {**WEB, "sign_up_plan": "team"}
FIVE = Grant("credit", amount_micro=5_000_000)


async def new_code(live: Live, grant: Grant = FIVE, uses: int = 1) -> str:
    options = codes.BatchOptions(uses=uses)
    settings = live.app.settings
    made = await codes.create(live.app.database, settings, grant, options, time.time())
    return made[0].code.reveal()


async def test_a_code_is_redeemed_once_and_credit_works(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    live = await relay_with(web=TEAM, plan=PLANS, model=MODELS)
    visitor = another(live)
    await visitor.sign_up()
    key = await visitor.new_key()
    assert await ask(live, key) == [402]
    code = await new_code(live)
    answer = await visitor.submit(PAGE, REDEEM, code=code.lower().replace("-", " "))
    assert answer.headers["location"] == f"{PAGE}?done=code_credit"
    page = (await visitor.get(answer.headers["location"])).text
    assert "The credit is in your balance." in page
    assert "Code redeemed $5.00 $5.00" in cells(page)[1]
    assert await ask(live, key) == [200]
    again = await visitor.submit(PAGE, REDEEM, code=code)
    assert again.status_code == 422
    assert "You have redeemed this code already." in again.text


async def test_a_plan_begins_and_is_extended(relay_with: RelayWith, another: NewVisitor) -> None:
    live = await relay_with(web=TEAM, plan=PLANS, model=MODELS)
    visitor = another(live)
    await visitor.sign_up()
    month = Grant("plan", plan="pro", seconds=30 * 86_400, plan_then="team")
    for done in ("code_plan", "code_extended"):
        answer = await visitor.submit(PAGE, REDEEM, code=await new_code(live, month))
        assert answer.headers["location"] == f"{PAGE}?done={done}"
    assert "Requests per 5 h" in (await visitor.get("/dashboard")).text


async def test_a_code_for_another_plan_needs_agreement(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    plans = [*PLANS, {"id": "max", "name": "Max"}]
    live = await relay_with(web=TEAM, plan=plans, model=MODELS)
    visitor = another(live)
    await visitor.sign_up()
    month = Grant("plan", plan="pro", seconds=30 * 86_400, plan_then="team")
    await visitor.submit(PAGE, REDEEM, code=await new_code(live, month))
    code = await new_code(live, Grant("plan", plan="max", seconds=86_400, plan_then="team"))
    asked = await visitor.submit(PAGE, REDEEM, code=code)
    assert asked.status_code == 422
    assert "would lose the rest of it" in asked.text
    found = re.search(r'name="agreed" value="(pro [^"]+)"', asked.text)
    assert found is not None
    wrong = await visitor.submit(PAGE, REDEEM, code=code, agreed="pro 1.0")
    assert wrong.status_code == 422
    done = await visitor.submit(PAGE, REDEEM, code=code, agreed=found[1])
    assert done.headers["location"] == f"{PAGE}?done=code_plan"


async def test_refused_codes_say_why_in_both_languages(visitor: Visitor, site: Live) -> None:
    await visitor.sign_up()
    invitation = await new_code(site, Grant("invite"))
    for code, words, chinese in (
        ("AAAA-BBBB", "not known here", "没有这个兑换码"),
        (invitation, "for signing up", "仅用于注册"),
        (" ", "not known here", "没有这个兑换码"),
    ):
        english = await visitor.submit(PAGE, REDEEM, code=code)
        assert english.status_code == 422
        assert words in english.text
        visitor.cookies.set(LANGUAGE_COOKIE, "zh")
        assert chinese in (await visitor.submit(PAGE, REDEEM, code=code)).text
        visitor.cookies.delete(LANGUAGE_COOKIE)


async def test_wrong_codes_are_throttled_for_an_account(
    site: Live, visitor: Visitor, another: NewVisitor
) -> None:
    await visitor.sign_up()
    fields = await visitor.form(PAGE, REDEEM)
    code = await new_code(site, uses=2)
    statuses = [
        (await visitor.post(REDEEM, data={**fields, "code": f"WRONG{number}"})).status_code
        for number in range(11)
    ]
    assert statuses == [422] * 10 + [429]
    refused = await visitor.post(REDEEM, data={**fields, "code": code})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert "too many tries" in refused.text
    other = another(site)
    await other.sign_up("other@example.com")
    assert (await other.submit(PAGE, REDEEM, code=code)).status_code == 303


async def test_the_address_is_throttled_across_accounts(site: Live, another: NewVisitor) -> None:
    statuses = []
    for number in range(4):
        visitor = another(site)
        await visitor.sign_up(f"person{number}@example.com")
        fields = await visitor.form(PAGE, REDEEM)
        for _ in range(9):
            answer = await visitor.post(REDEEM, data={**fields, "code": "WRONG"})
            statuses.append(answer.status_code)
    assert statuses == [422] * 30 + [429] * 6


async def test_a_code_needs_the_form_of_the_session(site: Live, visitor: Visitor) -> None:
    await visitor.sign_up()
    answer = await visitor.post(REDEEM, data={"code": await new_code(site)})
    assert answer.status_code == 403
    user = await find_user(site.app.database, "grace@example.com")
    assert user is not None
    assert await balance_of(site.app.database, user.id) == 0


async def test_the_statement_agrees_with_the_balance_and_csv(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    live = await relay_with(web=TEAM, plan=PLANS, model=MODELS)
    database = live.app.database
    visitor = another(live)
    await visitor.sign_up()
    user = await find_user(database, "grace@example.com")
    assert user is not None
    await credit(database, user.id, 7_000_001, "=1+1", time.time())
    key = await visitor.new_key()
    assert await ask(live, key, 2) == [200, 200]
    await until_logged(live, 2)
    request = (await database.select("SELECT id FROM usage LIMIT 1"))[0][0]
    await refund(database, request, "slow", time.time())
    rows = list(csv.DictReader(io.StringIO((await visitor.get(f"{PAGE}.csv")).text)))
    kinds = [row["reason"] or row["kind"] for row in rows]
    assert kinds == [
        "refund",
        "charge",
        "charge",
        "credit",
    ]
    assert rows[-1]["amount_usd"] == "7.000001"
    assert rows[-1]["note"] == "'=1+1"
    total = sum(int(row["amount_usd"].replace(".", "")) for row in rows)
    assert total == await balance_of(database, user.id)
    page = (await visitor.get(PAGE)).text
    assert [row.split(" UTC ")[1].split()[0] for row in cells(page)[1:]] == [
        "Refund", "Request", "Request", "Credit",
    ]  # fmt: skip


async def test_the_statement_has_pages_of_one_account_only(
    site: Live, visitor: Visitor, another: NewVisitor
) -> None:
    await visitor.sign_up()
    assert "needs no balance" in (await visitor.get(PAGE)).text
    user = await find_user(site.app.database, "grace@example.com")
    assert user is not None
    for number in range(60):
        await credit(site.app.database, user.id, 1_000_000, f"number {number}", time.time())
    first = (await visitor.get(PAGE)).text
    assert len(cells(first)) == 51
    older = first.split(f'href="{PAGE}?before=')[1].split('"')[0]
    last = cells((await visitor.get(f"{PAGE}?before={older}")).text)
    assert len(last) == 11
    assert "number 9" in last[1]
    other = another(site)
    await other.sign_up("other@example.com")
    assert "number" not in (await other.get(f"{PAGE}.csv")).text
