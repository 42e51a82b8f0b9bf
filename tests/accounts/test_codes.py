import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import config
from relay.accounts import AccountError, InvalidError, codes, users
from relay.accounts.codes import BatchOptions
from relay.store import audit, balance, periods
from relay.store import codes as stored
from relay.store.codes import CodeError, Grant
from relay.store.database import Database
from relay.store.users import User

SETTINGS = config.parse({"plan": [{"id": "free"}, {"id": "pro"}, {"id": "max"}]})
CREDIT = Grant("credit", amount_micro=5_000_000)
PRO = Grant("plan", plan="pro", seconds=30 * 86_400, plan_then="free")
NOW = 1_000.0
REDEEM = """
    import asyncio, sys
    from relay.accounts import AccountError, codes, users
    from relay.store.database import Database

    async def main(path, code, *emails):
        database = await Database.open(path)
        for email in emails:
            user = await users.find(database, email)
            try:
                await codes.redeem(database, user, code, 1000.0)
            except AccountError:
                pass
        await database.close()

    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "relay.db")
    yield database
    await database.close()


async def person(database: Database, name: str) -> User:
    email = f"{name}@example.com"
    return await users.create(database, SETTINGS, email, plan="free", is_admin=False, now=1.0)


async def make(database: Database, grant: Grant = CREDIT, **options: object) -> list[str]:
    made = await codes.create(database, SETTINGS, grant, BatchOptions(**options), NOW)  # type: ignore[arg-type]
    return [one.code.reveal() for one in made]


async def test_a_code_is_kept_as_its_digest_only(database: Database, tmp_path: Path) -> None:
    [code] = await make(database, note="spring")
    kept = b"".join(file.read_bytes() for file in sorted(tmp_path.glob("relay.db*")))  # noqa: ASYNC240
    assert b"spring" in kept
    assert code.encode() not in kept
    assert code.replace("-", "").encode() not in kept
    [record] = await stored.list_codes(database)
    assert record.hint == "…" + code[-4:]


async def test_credit_is_redeemed_once_by_each_person(database: Database) -> None:
    [code] = await make(database, uses=2)
    ann, bob, eve = [await person(database, name) for name in ("ann", "bob", "eve")]
    assert (await codes.redeem(database, ann, code, NOW)).balance_micro == 5_000_000
    with pytest.raises(AccountError, match="redeemed this code already"):
        await codes.redeem(database, ann, code, NOW)
    await codes.redeem(database, bob, code, NOW)
    with pytest.raises(AccountError, match="used already"):
        await codes.redeem(database, eve, code, NOW)
    [entry] = await balance.statement(database, ann.id)
    assert (entry.reason, entry.amount_micro) == ("redemption", 5_000_000)
    assert await balance.statement(database, eve.id) == []


SPELLINGS = {"0": "0oO", "1": "1iIlL", "-": "- "}
LETTERS = st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ-", min_size=1, max_size=19)


@given(code=LETTERS, data=st.data())
def test_a_code_is_read_as_people_write_it(code: str, data: st.DataObject) -> None:
    written = "".join(
        data.draw(st.sampled_from(SPELLINGS.get(letter, letter + letter.lower())))
        for letter in code
    )
    assert codes.code_digest(f" {written}\n") == codes.code_digest(code)
    assert codes.code_digest(code.replace("-", "")) == codes.code_digest(code)


async def test_a_code_is_refused_with_the_reason(database: Database) -> None:
    ann = await person(database, "ann")
    [late] = await make(database, lifetime="1h")
    [gone] = await make(database)
    [invitation] = await make(database, Grant("invite"))
    await codes.revoke(database, (await stored.list_codes(database))[1].batch, NOW)
    for code, words, now in (
        (late, "expired", NOW + 3600),
        (gone, "withdrawn", NOW),
        (invitation, "invitation", NOW),
        ("AAAA-BBBB", "not known", NOW),
        ("", "not known", NOW),
    ):
        with pytest.raises(AccountError, match=words):
            await codes.redeem(database, ann, code, now)
    assert [one.used for one in await stored.list_codes(database)] == [0, 0, 0]
    with pytest.raises(AccountError, match="relay code list"):
        await codes.revoke(database, "batch_0", NOW)


async def test_many_at_once_redeem_a_code_exactly_as_often_as_it_may(
    database: Database, tmp_path: Path
) -> None:
    """Tasks of this process, and two other processes."""
    [code] = await make(database, uses=5)
    people = [await person(database, f"p{number}") for number in range(24)]
    path, emails = str(tmp_path / "relay.db"), [one.email for one in people]
    program = [sys.executable, "-c", textwrap.dedent(REDEEM), path, code]
    others = [await asyncio.create_subprocess_exec(*program, *emails[part::3]) for part in (1, 2)]
    mine = [codes.redeem(database, one, code, NOW) for one in people for _ in range(3)]
    done = await asyncio.gather(*mine, return_exceptions=True)
    assert all(isinstance(one, AccountError | stored.Redemption) for one in done)
    for other in others:
        assert await other.wait() == 0
    credited = await database.select("SELECT user_id, amount_micro FROM statement")
    assert len(credited) == len({user for user, _ in credited}) == 5
    [record] = await stored.list_codes(database)
    assert (record.used, record.state(NOW)) == (5, "used")


async def test_a_plan_begins_anew_or_goes_on(database: Database) -> None:
    ann = await person(database, "ann")
    first, second = await make(database, PRO, number=2)
    [other] = await make(database, Grant("plan", plan="max", seconds=86_400, plan_then="free"))
    began = await codes.redeem(database, ann, first, NOW)
    assert (began.plan_until, began.extended) == (NOW + 30 * 86_400, False)
    went_on = await codes.redeem(database, ann, second, NOW + 60)
    assert (went_on.plan_until, went_on.extended) == (NOW + 60 * 86_400, True)
    with pytest.raises(AccountError, match="another plan, which would end"):
        await codes.redeem(database, ann, other, NOW + 90)
    anew = await codes.redeem(database, ann, other, NOW + 90, replace=True)
    assert (anew.plan_until, anew.extended) == (NOW + 90 + 86_400, False)
    now = await users.find(database, ann.email)
    assert [now.plan_at(NOW + 91), now.plan_at(NOW + 90 + 86_400)] == ["max", "free"]
    history = await periods.list_periods(database, ann.id)
    assert [(one.plan, one.kind) for one in history] == [
        ("max", "start"), ("pro", "extend"), ("pro", "start"),
    ]  # fmt: skip


async def test_a_code_never_ends_a_plan_without_an_end(database: Database) -> None:
    """Neither the same plan, which the code would shorten, nor another one in silence."""
    ann = await person(database, "ann")
    for plan, words in (("pro", "already, and without an end"), ("max", "another plan")):
        await users.set_plan(database, SETTINGS, ann.email, plan)
        [code] = await make(database, PRO)
        with pytest.raises(AccountError, match=words):
            await codes.redeem(database, ann, code, NOW)
        now = await users.find(database, ann.email)
        assert (now.plan, now.plan_until) == (plan, None)
        found = await stored.list_codes(database)
        assert found[0].used == 0


async def test_an_invitation_is_used_in_the_transaction_of_the_sign_up(
    database: Database,
) -> None:
    [code] = await make(database, Grant("invite", plan="pro"))
    found = await codes.check_invitation(database, code, NOW)
    assert found.plan == "pro"
    use = stored.use_invitation
    await database.write(lambda connection: use(connection, found, "usr_new", NOW))
    with pytest.raises(CodeError, match="used"):
        await database.write(lambda connection: use(connection, found, "usr_2", NOW))
    with pytest.raises(AccountError, match="used already"):
        await codes.check_invitation(database, code, NOW)
    [credit] = await make(database)
    with pytest.raises(AccountError, match="not an invitation"):
        await codes.check_invitation(database, credit, NOW)


@pytest.mark.parametrize(
    ("grant", "options"),
    [
        (CREDIT, {"number": 0}),
        (CREDIT, {"number": 10_001}),
        (CREDIT, {"uses": 0}),
        (CREDIT, {"lifetime": "soon"}),
        (CREDIT, {"note": "a\nb"}),
        (Grant("credit"), {}),
        (Grant("credit", amount_micro=-1), {}),
        (Grant("plan", plan="none", seconds=1, plan_then="free"), {}),
        (Grant("plan", plan="pro", seconds=1, plan_then="none"), {}),
        (Grant("plan", plan="pro", seconds=0, plan_then="free"), {}),
        (Grant("invite", plan="none"), {}),
    ],
)
async def test_a_wrong_batch_is_refused(
    database: Database, grant: Grant, options: dict[str, object]
) -> None:
    with pytest.raises(InvalidError):
        await make(database, grant, **options)
    assert await stored.list_codes(database) == []


async def test_a_batch_can_be_written_for_a_spreadsheet(database: Database) -> None:
    made = await codes.create(database, SETTINGS, PRO, BatchOptions(3, lifetime="1d"), NOW)
    lines = codes.as_csv(made).splitlines()
    assert len(lines) == 4
    assert lines[1].startswith(made[0].code.reveal() + ",code_")
    assert lines[1].endswith(",plan,0,pro,30.0,1,1970-01-02T00:16:40.000Z")


async def test_redemptions_are_in_the_audit_log_without_the_code(database: Database) -> None:
    ann = await person(database, "ann")
    [code] = await make(database)
    await codes.redeem(database.by(audit.Actor(ann.id, "192.0.2.1")), ann, code, NOW)
    found = await audit.entries(database, limit=2)
    assert [one.action for one in found] == ["balance.redemption", "code.redeem"]
    assert {one.actor for one in found} == {ann.id}
    assert code not in str(await database.select("SELECT * FROM audit"))
