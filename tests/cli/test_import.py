"""`relay import`: what other relays have goes on working here, and the rest is explained."""

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import pytest

from relay import config
from relay.errors import RelayError
from relay.gateway.authentication import KeyIndex
from relay.store.database import Database
from relay.store.keys import LiveKey, live_keys
from tests.cli.command import data, done, refused, run
from tests.transfer import dumps

pytestmark = pytest.mark.usefixtures("folder")


def lines(result: Any, action: str) -> set[tuple[str, str, str]]:
    return {
        (row["what"], row["name"], row["detail"])
        for row in result["lines"]
        if row["action"] == action
    }


def caller(key: str) -> LiveKey | None:
    """Who a server would take the sender of `key` for."""

    async def read() -> list[LiveKey]:
        database = await Database.open("relay.db")
        try:
            return await live_keys(database)
        finally:
            await database.close()

    index = KeyIndex()
    index.replace(asyncio.run(read()))
    try:
        return index.identify({b"x-api-key": key.encode()})
    except RelayError:  # unknown or suspended
        return None


def test_new_api_users_and_keys_go_on_working(folder: Path) -> None:
    dumps.sqlite_file(folder / "one-api.db", dumps.NEW_API)
    result = data("import", "new-api", "one-api.db", "--domain", "example.org")
    assert lines(result, "new") == {
        ("user", "root@example.com", "plan pro"),
        ("user", "ann@example.org", "plan free, suspended"),
        ("key", "laptop (sk-…nnnn)", "root@example.com"),
        ("key", "ann's (sk-…oooo)", "ann@example.org"),
        ("credit", "root@example.com", "$25.00"),
        ("upstream", "Claude-main", "https://api.anthropic.com"),
        ("upstream", "Claude-main-2", "https://api.anthropic.com"),
        ("upstream", "Claude-main-3", "https://mirror.example"),
    }
    restricted = "--restricted takes it over without that limit"
    assert lines(result, "left out") == {
        ("user", "gone@example.com", "deleted there"),
        ("user", "ROOT@example.com", "user 1 has the same address"),
        ("key", "one model (sk-…mmmm)", f"limited to certain models; {restricted}"),
        ("key", "office (sk-…iiii)", f"limited to certain addresses; {restricted}"),
        ("key", "quota (sk-…qqqq)", f"limited to $2.50 of its own; {restricted}"),
        ("key", "disabled", "disabled, expired or used up there"),
        ("key", "expired (sk-…eeee)", "it has expired"),
        ("key", "nobody's (sk-…zzzz)", "no user owns it"),
        ("upstream", "OpenAI", "does not speak the Messages API (type 1)"),
        ("upstream", "banned", "disabled there"),
    }
    found = caller(f"sk-{dumps.NEW_KEY}")
    assert found is not None
    assert (found.email, found.plan, found.credited) == ("root@example.com", "pro", 25_000_000)
    assert caller(f"sk-{dumps.OLD_KEY}") is None  # suspended
    done("user", "resume", "ann@example.org")
    assert caller(f"sk-{dumps.OLD_KEY}") is not None


def test_an_import_is_shown_first_and_adds_nothing_twice(folder: Path) -> None:
    dumps.sqlite_file(folder / "one-api.db", dumps.NEW_API)
    arguments = ("import", "new-api", "one-api.db")
    planned = data(*arguments, "--dry-run")
    assert not planned["imported"]
    assert data("user", "list") == []
    assert "Nothing was changed." in done(*arguments, "--dry-run")
    assert data(*arguments)["lines"] == planned["lines"]
    again = data(*arguments)
    assert {row["what"] for row in again["lines"] if row["action"] == "new"} == {"upstream"}
    assert data("user", "statement", "root@example.com")["balance_micro"] == 25_000_000
    more = data(*arguments, "--restricted")
    assert {name for what, name, _ in lines(more, "new") if what == "key"} == {
        "one model (sk-…mmmm)", "office (sk-…iiii)", "quota (sk-…qqqq)",
    }  # fmt: skip


def test_a_user_without_address_needs_a_domain(folder: Path) -> None:
    dumps.sqlite_file(folder / "one-api.db", dumps.NEW_API)
    result = data("import", "new-api", "one-api.db")
    assert ("user", "ann", "it has no e-mail address; --domain DOMAIN makes one of its name") in (
        lines(result, "left out")
    )
    assert ("key", "ann's (sk-…oooo)", "its user is left out") in lines(result, "left out")


def test_one_api_is_read_as_well(folder: Path) -> None:
    dumps.sqlite_file(folder / "old.db", dumps.ONE_API)
    result = data("import", "one-api", "old.db", "--plan", "pro")
    assert lines(result, "new") == {
        ("user", "root@example.com", "plan pro"),
        ("key", "all (sk-…oooo)", "root@example.com"),
        ("credit", "root@example.com", "$2.00"),
    }
    assert caller(f"sk-{dumps.OLD_KEY}") is not None


def test_sub2api_is_read_from_a_dump(folder: Path) -> None:
    (folder / "dump.sql").write_text(dumps.SUB2API)
    result = data("import", "sub2api", "dump.sql")
    assert lines(result, "new") == {
        ("user", "bea@example.com", "plan pro"),
        ("user", "off@example.com", "plan free, suspended"),
        ("key", "taband \\ backslash (sk-…ey-1)", "bea@example.com"),
        ("key", "later (sk-…ey-3)", "bea@example.com"),
        ("credit", "bea@example.com", "$12.35"),
        ("upstream", "Main-key", "https://api.anthropic.com"),
    }
    assert {(name, why) for _, name, why in lines(result, "left out")} == {
        (
            "limited (sk-…ey-2)",
            "limited to $3.75 of its own, to certain addresses; --restricted takes it over without "
            "that limit",
        ),
        ("off", "disabled there"),
        ("Max plan", "signed in by oauth, and not by an API key"),
        ("Gemini", "does not speak the Messages API (gemini)"),
    }
    found = caller("sk-subkey-3")
    assert found is not None
    assert found.expires_at == 2_082_751_200.0  # 2035-12-31T22:00:00Z
    assert found.credited == 12_345_678


def test_litellm_keys_are_taken_over_as_hashes(folder: Path) -> None:
    (folder / "dump.sql").write_text(dumps.LITELLM)
    result = data("import", "litellm", "dump.sql")
    assert lines(result, "new") == {
        ("user", "cyd@example.com", "plan free"),
        ("user", "dan@example.com", "plan free"),
        ("key", "ci (sk-…te-1)", "cyd@example.com"),
        ("key", "sk-...te-2 (sk-…te-2)", "dan@example.com"),
        ("key", "plain (sk-…lain)", "cyd@example.com"),
        ("credit", "cyd@example.com", "$62.50"),
    }
    reasons = {name: why for _, name, why in lines(result, "left out")}
    assert set(reasons) == {
        "default_user_id", "models (sk-…te-3)", "slow (sk-…te-4)", "blocked", "team (sk-…te-6)",
        "claude",
    }  # fmt: skip
    assert reasons["slow (sk-…te-4)"].startswith("limited to $5.00 of its own, by rpm_limit;")
    assert "encrypted there" in reasons["claude"]
    for key in ("sk-lite-1", "sk-lite-2", "sk-lite-plain"):
        assert caller(key) is not None
    assert caller("sk-lite-3") is None


def test_upstreams_are_written_as_settings(folder: Path) -> None:
    dumps.sqlite_file(folder / "one-api.db", dumps.NEW_API)
    done("import", "new-api", "one-api.db", "--upstreams", "upstreams.toml")
    assert (folder / "upstreams.toml").stat().st_mode & 0o777 == 0o600
    found = config.parse(tomllib.loads((folder / "upstreams.toml").read_text())).upstream
    assert [(one.name, one.api_key, one.priority, one.weight) for one in found] == [
        ("Claude-main", "sk-ant-1", 0, 3),
        ("Claude-main-2", "sk-ant-2", 0, 3),
        ("Claude-main-3", "sk-ant-3", 10, 1),
    ]
    assert "File exists" in refused(
        1, "import", "new-api", "one-api.db", "--upstreams", "upstreams.toml"
    )
    assert "sk-ant" not in run("import", "new-api", "one-api.db").output


def test_a_key_of_another_account_here_is_not_taken_over(folder: Path) -> None:
    dumps.sqlite_file(folder / "old.db", dumps.ONE_API)
    data("import", "one-api", "old.db")
    other = dumps.ONE_API.replace("root@example.com", "other@example.com")
    dumps.sqlite_file(folder / "other.db", other)
    result = data("import", "one-api", "other.db")
    assert ("key", "all (sk-…oooo)", "another account here has it") in lines(result, "left out")


@pytest.mark.parametrize(
    ("status", "arguments", "words"),
    [
        (1, ["new-api", "none.db"], "none.db: No such file"),
        (1, ["new-api", "relay.toml"], "has none of the tables of new-api"),
        (1, ["litellm", "cut.sql"], "cut.sql: the rows of LiteLLM_UserTable do not end"),
        (1, ["sub2api", "other.db"], "has no column 'id'"),
        (1, ["new-api", "bad.db"], "bad.db: cannot be read"),
        (2, ["new-api", "other.db", "--plan", "gold"], "no plan is named 'gold'"),
        (2, ["new-api", "other.db", "--domain", "a b"], "is no domain"),
        (2, ["oneapi", "other.db"], "'oneapi' is not one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_source_that_cannot_be_read_is_one_line(
    folder: Path, status: int, arguments: list[str], words: str
) -> None:
    (folder / "cut.sql").write_text(dumps.LITELLM[: dumps.LITELLM.index("default_user")])
    (folder / "bad.db").write_bytes(b"SQLite format 3\0" + bytes(200))
    dumps.sqlite_file(folder / "other.db", "CREATE TABLE groups (a); INSERT INTO groups VALUES (1)")
    assert words in refused(status, "import", *arguments)
