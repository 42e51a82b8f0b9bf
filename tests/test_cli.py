"""The command line: what it prints, what it refuses, and that it keeps its secrets."""

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay import secret
from relay.cli import main
from relay.store.database import Database
from relay.store.queries import LiveKey, live_keys
from relay.store.watch import watch

SETTINGS = """
[server]
public_url = "https://relay.example"

[[upstream]]
name = "main"
base_url = "http://127.0.0.1:9"
api_key = "sk-upstream-canary"

[[model]]
id = "claude-sonnet-4-7"

[[plan]]
id = "free"
max_keys = 2

[[plan]]
id = "pro"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a relay.toml in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relay.toml").write_text(SETTINGS)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def data(*arguments: str) -> Any:
    return json.loads(done(*arguments, "--json"))


def refused(status: int, *arguments: str) -> str:
    """The one line on standard error that a refused command leaves."""
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.rstrip("\n")


def relay(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments], capture_output=True, text=True, timeout=30
    )


# check


def test_check_says_ok_and_shows_every_setting_with_secrets_masked() -> None:
    out = done("check")
    assert out.startswith("ok: relay.toml (1 upstream, 1 model, 2 plans)\n")
    assert 'server.public_url = "https://relay.example"\n' in out
    assert "server.timeouts.idle = 75.0\n" in out
    assert 'upstream[0].api_key = "•••"\n' in out
    assert "canary" not in out


def test_check_prints_the_same_as_json() -> None:
    shown = data("check")
    assert shown["ok"] is True
    assert shown["settings"]["plan"][1]["id"] == "pro"
    assert "canary" not in json.dumps(shown)


def test_check_names_a_wrong_setting_by_its_path_and_what_is_accepted(folder: Path) -> None:
    (folder / "relay.toml").write_text("[server]\nlisen = []\n")
    line = refused(2, "check")
    assert line.startswith("relay.toml: server.lisen: unknown setting; accepted here: admin_listen")
    assert refused(2, "check", "--json") == line


def test_check_names_every_credential_that_cannot_be_had(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RELAY_TEST_UNSET", raising=False)
    more = '[[upstream]]\nname = "{}"\nbase_url = "http://a"\napi_key = "{}"\n'
    (folder / "relay.toml").write_text(SETTINGS + more.format("b", "env:RELAY_TEST_UNSET"))
    line = refused(2, "check")
    assert line == (
        "relay.toml: upstream[1].api_key: the environment variable RELAY_TEST_UNSET is not set"
    )
    assert refused(2, "serve") == line  # and serving does not begin without it
    (folder / "relay.toml").write_text(
        SETTINGS + more.format("b", "env:RELAY_TEST_UNSET") + more.format("c", "file:none")
    )
    result = run("check")
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        "upstream[1].api_key",
        "upstream[2].api_key",
    ]
    monkeypatch.setenv("RELAY_TEST_UNSET", "sk-env-canary")
    (folder / "none").write_text("sk-file-canary\n")
    assert "canary" not in done("check")


def test_check_misses_certificates_that_are_not_there(folder: Path) -> None:
    tls = 'public_url = "https://relay.example"\ntls = { cert = "c.pem", key = "k.pem" }'
    text = SETTINGS.replace('public_url = "https://relay.example"', tls)
    (folder / "relay.toml").write_text(text)
    (folder / "c.pem").write_text("")
    assert "relay.toml: server.tls.key: cannot read" in refused(2, "check")


def test_a_missing_file_is_told_with_its_name_and_the_option(folder: Path) -> None:
    (folder / "relay.toml").unlink()
    for command in ("check", "serve", "demo", "user list"):
        line = refused(2, *command.split())
        assert "cannot read relay.toml: No such file" in line
        assert "--config PATH" in line


# --config


@pytest.mark.parametrize(
    "command",
    ["--config other.toml user list", "user --config other.toml list",
     "user list --config other.toml", "--config none.toml user list --config other.toml"],
)  # fmt: skip
def test_the_settings_may_be_named_anywhere(folder: Path, command: str) -> None:
    (folder / "relay.toml").rename(folder / "other.toml")
    done("user", "create", "ann@example.com", "--config", "other.toml")
    assert "ann@example.com" in done(*command.split())


@pytest.mark.parametrize(
    "command",
    ["serve", "demo", "simulate", "check", "user create", "user list", "user set-plan",
     "user suspend", "user resume", "key create", "key list", "key revoke"],
)  # fmt: skip
def test_every_command_takes_config_and_explains_itself(command: str) -> None:
    text = done(*command.split(), "--help")
    assert "--config PATH" in text
    assert ("--json" in text) == (command not in ("serve", "demo", "simulate"))


# people


def test_a_user_is_created_listed_moved_suspended_and_resumed() -> None:
    made = data("user", "create", "ann@example.com")
    assert made == {
        "id": made["id"], "email": "ann@example.com", "plan": "free", "admin": False,
        "created_at": made["created_at"], "suspended_at": None,
    }  # fmt: skip
    assert made["id"].startswith("usr_")
    assert data("user", "create", "boss@example.com", "--plan", "pro", "--admin")["admin"] is True
    assert data("user", "set-plan", "ann@example.com", "pro")["plan"] == "pro"
    assert data("user", "suspend", "ANN@example.com")["suspended_at"] is not None
    users = data("user", "list")
    assert [(user["email"], user["plan"]) for user in users] == [
        ("ann@example.com", "pro"),
        ("boss@example.com", "pro"),
    ]
    assert users[0]["suspended_at"] is not None
    assert data("user", "resume", "ann@example.com")["suspended_at"] is None


def test_every_command_on_people_answers_in_words_too() -> None:
    assert "no" in done("user", "list").lower()
    assert "relay key create --user ann@example.com" in done("user", "create", "ann@example.com")
    assert "pro" in done("user", "set-plan", "ann@example.com", "pro")
    assert "suspended" in done("user", "suspend", "ann@example.com")
    assert "active" in done("user", "resume", "ann@example.com")
    assert done("key", "list") == "There are no keys yet.\n"


def test_a_row_of_a_table_stays_on_its_line_in_a_pipe() -> None:
    long = "a" * 60 + "@" + "b" * 60 + ".example"
    done("user", "create", long)
    [row] = [line for line in done("user", "list").splitlines() if "usr_" in line]
    assert long in row
    assert "free" in row


@pytest.mark.parametrize(
    ("status", "command", "words"),
    [
        (2, "user create ann", "'ann' is no e-mail address"),
        (2, "user create b@example.com --plan gold", "relay.toml has free, pro"),
        (1, "user create ann@example.com", "has an account already"),
        (2, "user set-plan ann@example.com gold", "relay.toml has free, pro"),
        (1, "user set-plan bob@example.com pro", "no user has the address 'bob@example.com'"),
        (1, "user suspend bob@example.com", "`relay user list` shows"),
        (1, "user resume bob@example.com", "`relay user create EMAIL` adds one"),
        (1, "key create --user bob@example.com", "no user has the address"),
        (2, "key create --user ann@example.com --expires 3w", "30s, 5h, 7d"),
        (1, "key list --user bob@example.com", "no user has the address"),
        (1, "key revoke key_00", "`relay key list` shows them"),
        (2, "key revoke 00", "one looks like key_"),
        (2, "user create new@example.com --password-stdin", "dashboard"),
        (2, "frob", "No such command 'frob'. See `relay --help`."),
        (2, "user frob", "See `relay user --help`."),
        (2, "user list --frob", "No such option"),
        (2, "user create", "Missing argument 'EMAIL'. See `relay user create --help`."),
        (2, "key create", "Missing option '--user'"),
        (2, "simulate", "Missing option '--port'"),
        (2, "simulate --port 65536", "0<=x<=65535"),
        (2, "demo --port x", "not a valid integer"),
        (2, "user list x", "unexpected extra argument"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(status: int, command: str, words: str) -> None:
    done("user", "create", "ann@example.com")
    assert words in refused(status, *command.split())
    assert [user["email"] for user in data("user", "list")] == ["ann@example.com"]


def test_a_database_that_cannot_be_used_is_one_line(folder: Path) -> None:
    (folder / "relay.toml").write_text(SETTINGS + '[database]\npath = "none/relay.db"\n')
    assert "there is no folder" in refused(1, "user", "list")
    (folder / "relay.db").write_bytes(b"not a database" * 100)
    (folder / "relay.toml").write_text(SETTINGS)
    assert "damaged" in refused(1, "key", "list")


def test_what_nobody_thought_of_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("a mistake\nof ours")

    monkeypatch.setattr("relay.config.effective", fail)
    line = refused(1, "check")
    assert "internal error: LookupError: a mistake of ours (test_cli.py:" in line


# keys


@pytest.fixture
def ann() -> str:
    done("user", "create", "ann@example.com")
    return "ann@example.com"


def test_a_new_key_is_shown_with_how_to_use_it(ann: str) -> None:
    out = done("key", "create", "--user", ann)
    key = out.splitlines()[0]
    assert key.startswith("sk-llmapi-")
    assert "ANTHROPIC_BASE_URL=https://relay.example\n" in out
    assert f"ANTHROPIC_AUTH_TOKEN={key}\n" in out
    assert data("key", "list")[0]["id"] in out


def test_a_new_key_as_json_has_all_that_a_script_needs(ann: str) -> None:
    made = data("key", "create", "--user", ann.upper(), "--name", "laptop", "--expires", "30d")
    assert list(made) == ["id", "key", "user", "name", "hint", "created_at", "expires_at"]
    assert made["user"] == ann
    assert made["name"] == "laptop"
    assert made["hint"] == "sk-llmapi-…" + made["key"][-4:]
    assert made["created_at"].endswith("Z")
    assert made["expires_at"] > made["created_at"]
    assert data("key", "create", "--user", ann)["expires_at"] is None


def test_keys_are_listed_with_their_state_and_revoked_by_a_beginning(ann: str) -> None:
    first, second = (data("key", "create", "--user", ann)["id"] for _ in range(2))
    other = data("user", "create", "bob@example.com")["email"]
    data("key", "create", "--user", other)
    gone = data("key", "revoke", first[:14])
    assert (gone["id"], gone["state"]) == (first, "revoked")
    assert data("key", "revoke", first) == gone
    states = {key["id"]: key["state"] for key in data("key", "list", "--user", ann)}
    assert states == {first: "revoked", second: "live"}
    assert len(data("key", "list")) == 3
    assert "is revoked" in done("key", "revoke", second)


def test_a_plan_has_so_many_keys_and_no_more(ann: str) -> None:
    for _ in range(2):
        done("key", "create", "--user", ann)
    line = refused(1, "key", "create", "--user", ann)
    assert "has 2 live keys, all that plan 'free' allows" in line


def test_a_key_for_a_suspended_user_is_made_with_a_warning(ann: str) -> None:
    done("user", "suspend", ann)
    result = run("key", "create", "--user", ann, "--json")
    assert json.loads(result.stdout)["key"]
    assert f"relay user resume {ann}" in result.stderr


def test_a_key_is_shown_once_and_its_digest_never(ann: str, folder: Path) -> None:
    made = data("key", "create", "--user", ann)
    key, digest = made["key"], secret.digest(made["key"].encode())
    outputs = [
        run(*command).output
        for command in (
            ["key", "list"], ["key", "list", "--json"], ["user", "list"],
            ["user", "list", "--json"],
            ["check"], ["user", "suspend", ann], ["key", "revoke", made["id"], "--json"],
            ["key", "revoke", key], ["key", "revoke", made["id"]],
            ["key", "list", "--user", ann, "--json"],
        )
    ]  # fmt: skip
    random = key.removeprefix("sk-llmapi-")
    forms = [random, digest.hex(), base64.b64encode(digest).decode(), str(digest)]
    assert [form for form in forms if form in "".join(outputs)] == []
    kept = b"".join(file.read_bytes() for file in folder.glob("relay.db*"))
    assert digest in kept
    assert random[:-4].encode() not in kept


# the real command


def test_the_command_itself_prints_no_traceback_and_ends_with_the_status() -> None:
    assert "relay, version" in relay("--version").stdout
    wrong = relay("user", "create", "ann")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    made = relay("user", "create", "ann@example.com", "--json")
    assert (made.returncode, made.stderr) == (0, "")
    assert json.loads(made.stdout)["email"] == "ann@example.com"


def test_without_arguments_it_shows_the_commands() -> None:
    result = run()
    assert result.exit_code == 2
    assert "simulate" in result.stderr


def test_an_output_that_lacks_a_character_gets_the_rest(ann: str) -> None:
    done("key", "create", "--user", ann)
    shown = subprocess.run(
        [sys.executable, "-m", "relay", "key", "list"],
        capture_output=True, timeout=30, env={"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert shown.returncode == 0
    assert b"key_" in shown.stdout


async def test_a_change_on_the_command_line_is_seen_within_a_second(folder: Path) -> None:
    database = await Database.open(folder / "relay.db")
    told: asyncio.Queue[list[LiveKey]] = asyncio.Queue()
    watching = asyncio.create_task(watch(database, 0.25, told.put_nowait))

    async def command(*arguments: str) -> Any:
        result = await asyncio.to_thread(relay, *arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    async def seen(wanted: list[tuple[str, bool]]) -> None:
        async with asyncio.timeout(1):
            while [(key.key_id, key.suspended) for key in await told.get()] != wanted:
                pass

    await command("user", "create", "ann@example.com")
    made = await command("key", "create", "--user", "ann@example.com")
    await seen([(made["id"], False)])
    [live] = await live_keys(database)
    assert live.digest == secret.digest(made["key"].encode())
    await command("user", "suspend", "ann@example.com")
    await seen([(made["id"], True)])
    await command("key", "revoke", made["id"])
    await seen([])
    watching.cancel()
    await asyncio.wait([watching])
    await database.close()
