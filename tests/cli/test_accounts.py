"""`relay user` and `relay key`: what they print, change and refuse."""

import base64
import json
import sqlite3
from pathlib import Path

import pytest

from relay import secret
from tests.cli.command import SETTINGS, data, done, refused, run
from tests.cli.journal import write_requests
from tests.store.entries import admission

pytestmark = pytest.mark.usefixtures("folder")
PREPAID = SETTINGS.replace(
    'id = "claude-sonnet-4-7"', 'id = "claude-sonnet-4-7"\nprice = { input = 3.0, output = 15.0 }'
).replace('id = "pro"', 'id = "pro"\nbilling = "per-token"')


def test_a_user_is_created_listed_moved_suspended_and_resumed() -> None:
    made = data("user", "create", "ann@example.com")
    assert made == {
        "id": made["id"], "email": "ann@example.com", "plan": "free", "admin": False,
        "plan_until": None, "plan_then": None, "created_at": made["created_at"],
        "suspended_at": None, "suspended_reason": "",
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


def test_every_user_command_prints_a_sentence_without_json() -> None:
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


def test_a_new_key_is_shown_with_how_to_use_it(ann: str) -> None:
    out = done("key", "create", "--user", ann)
    key = out.splitlines()[0]
    assert key.startswith("sk-llmapi-")
    assert "ANTHROPIC_BASE_URL=https://relay.example\n" in out
    assert f"ANTHROPIC_AUTH_TOKEN={key}\n" in out
    assert data("key", "list")[0]["id"] in out


def test_a_new_key_as_json_has_every_field(ann: str) -> None:
    made = data("key", "create", "--user", ann.upper(), "--name", "laptop", "--expires", "30d")
    assert list(made) == [
        "id", "key", "user", "name", "hint", "state", "created_at", "expires_at", "revoked_at",
        "cache_breakpoints", "models", "addresses", "limits", "max_concurrency", "old_key_until",
    ]  # fmt: skip
    assert made["user"] == ann
    assert made["name"] == "laptop"
    assert made["hint"] == "sk-llmapi-…" + made["key"][-4:]
    assert made["created_at"].endswith("Z")
    assert made["expires_at"] > made["created_at"]
    assert data("key", "create", "--user", ann)["expires_at"] is None


def test_keys_are_listed_with_state_and_revoked_by_id_prefix(ann: str) -> None:
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


def test_a_key_without_cache_breakpoints_is_shown_as_such(ann: str) -> None:
    made = data("key", "create", "--user", ann)
    assert made["cache_breakpoints"] is True
    assert "cache" not in done("key", "list")
    bare = data("key", "create", "--user", ann, "--no-cache-breakpoints")
    assert bare["cache_breakpoints"] is False
    shown = {key["id"]: key["cache_breakpoints"] for key in data("key", "list")}
    assert shown == {made["id"]: True, bare["id"]: False}
    assert "cache breakpoints" in done("key", "list")
    assert data("key", "revoke", bare["id"])["cache_breakpoints"] is False


def test_a_plan_limits_the_number_of_live_keys(ann: str) -> None:
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


def test_a_credit_is_exact_and_answers_with_the_new_balance(ann: str, folder: Path) -> None:
    (folder / "relay.toml").write_text(PREPAID)
    done("user", "set-plan", ann, "pro")
    given = run("user", "credit", ann, "25")
    assert given.stderr == ""  # this plan draws on it
    assert given.stdout == ("ann@example.com is credited $25.00; the balance is $25.00.\n")
    assert "balance is $25.10." in done("user", "credit", ann, "0.1")
    assert "balance is $25.30." in done("user", "credit", ann, "+0.20")
    assert "balance is $25.300001." in done("user", "credit", ann, "0.000001", "--note", "a tip")
    assert done("user", "credit", ann, "-30.5") == (
        "$30.50 is taken back from ann@example.com; the balance is -$5.199999.\n"
    )
    entry = data("user", "credit", ann.upper(), "1000000", "--note", "invoice 7")
    assert entry == {
        "user": ann, "time": entry["time"], "kind": "credit", "amount_micro": 10**12,
        "balance_micro": 10**12 - 5_199_999, "request": None, "note": "invoice 7",
    }  # fmt: skip
    assert "balance is $999,994.800001." in done("user", "statement", ann)


@pytest.mark.parametrize("options", [["-4"], ["--", "-4"], ["--note", "-5", "-4", "--json"]])
def test_a_negative_amount_is_not_taken_for_an_option(ann: str, options: list[str]) -> None:
    done("user", "credit", ann, *options)
    assert data("user", "statement", ann)["balance_micro"] == -4_000_000


def test_a_credit_on_a_plan_that_is_not_billed_warns(ann: str) -> None:
    result = run("user", "credit", ann, "5", "--json")
    assert json.loads(result.stdout)["balance_micro"] == 5_000_000
    assert "is on plan free, which charges nothing to the balance" in result.stderr


def test_a_statement_shows_credits_and_charges_in_order(ann: str) -> None:
    assert done("user", "statement", ann) == (
        "ann@example.com was neither credited nor charged anything.\nThe balance is $0.00.\n"
    )
    assert data("user", "statement", ann) == {
        "user": ann, "balance_micro": 0, "entries": [], "older": False,
    }  # fmt: skip
    done("user", "credit", ann, "2", "--note", "first")
    done("user", "create", "bob@example.com")
    done("user", "credit", "bob@example.com", "9")
    user_id = data("user", "list")[0]["id"]
    request = admission(user_id=user_id, billed_micro=500)
    write_requests(request, cost_micro=77)
    shown = data("user", "statement", ann)
    assert shown["balance_micro"] == 1_999_923
    assert [(e["kind"], e["amount_micro"], e["balance_micro"]) for e in shown["entries"]] == [
        ("credit", 2_000_000, 2_000_000),
        ("charge", -77, 1_999_923),
    ]
    assert [(e["request"], e["note"]) for e in shown["entries"]] == [
        (None, "first"),
        (request.id, ""),
    ]
    last = data("user", "statement", ann, "--last", "1")
    assert last == shown | {"entries": shown["entries"][1:], "older": True}
    assert data("user", "statement", ann, "--last", "2") == shown
    words = done("user", "statement", ann, "--last", "1")
    assert words.startswith("There are older entries; --last shows more than 1.\n")
    assert "-$0.000077" in words
    assert words.endswith("The balance is $1.999923.\n")


@pytest.mark.matrix(share=2)
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
        (2, "user create new@example.com --password-stdin", "the password is too short"),
        (1, "user link bob@example.com", "no user has the address"),
        (1, "user link", "`relay user link EMAIL` names one"),
        (2, "user invite", 'web.sign_up must be "invite" or "open"'),
        (2, "usage --since 3w", "relay: --since: '3w' is no duration; write a whole number"),
        (2, "usage --by week", "'week' is not one of 'user', 'key', 'model', 'day'"),
        (1, "usage --user bob@example.com", "no user has the address"),
        (1, "user credit bob@example.com 5", "no user has the address"),
        (1, "user statement bob@example.com", "no user has the address"),
        (2, "user statement ann@example.com --last 0", "1<=x<=1000000000"),
        (2, "user credit ann@example.com", "Missing argument 'AMOUNT'"),
        (
            2,
            "user credit ann@example.com 0",
            "a credit is up to 1,000,000 dollars, and not nothing",
        ),
        (2, "user credit ann@example.com -0.000000", "and not nothing"),
        (2, "user credit ann@example.com 1000000.000001", "a credit is up to 1,000,000 dollars"),
        (2, "user credit ann@example.com 0.0000001", "with up to six decimals"),
        (2, "user credit ann@example.com 1e3", "'1e3' is no amount; write US dollars"),
        (2, "user credit ann@example.com 1,000", "is no amount"),
        (2, "user credit ann@example.com $5", "is no amount"),
        (2, "user credit ann@example.com nan", "is no amount"),
        (2, "user credit ann@example.com ٣", "is no amount"),
        (2, "user credit ann@example.com --nota", "'--nota' is no amount"),
        (2, "user credit ann@example.com 5 --nota x", "unexpected extra arguments (--nota x)"),
        (2, f"user credit ann@example.com 5 --note {'x' * 201}", "up to 200 printable"),
        (2, "user credit ann@example.com 5 --note \x1b[31m", "up to 200 printable"),
        (2, "restore", "Missing argument 'PATH'. See `relay restore --help`."),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(status: int, command: str, words: str) -> None:
    done("user", "create", "ann@example.com")
    assert words in refused(status, *command.split())
    assert [user["email"] for user in data("user", "list")] == ["ann@example.com"]
    assert data("user", "statement", "ann@example.com")["entries"] == []


def test_a_link_can_remove_the_second_step(folder: Path) -> None:
    done("user", "create", "ann@example.com")
    count = "SELECT count(*) FROM totp"
    with sqlite3.connect(folder / "relay.db") as database:
        database.execute("INSERT INTO totp SELECT id, x'00', 1.0, 0 FROM users")
    done("user", "link", "ann@example.com")
    with sqlite3.connect(folder / "relay.db") as database:
        assert database.execute(count).fetchone() == (1,)
    done("user", "link", "ann@example.com", "--no-second-step")
    with sqlite3.connect(folder / "relay.db") as database:
        assert database.execute(count).fetchone() == (0,)


def test_a_key_is_renamed_disabled_restricted_and_rotated(ann: str) -> None:
    made = data("key", "create", "--user", ann, "--model", "claude-sonnet-*")
    assert made["models"] == ["claude-sonnet-*"]
    assert data("key", "rename", made["id"], "laptop")["name"] == "laptop"
    assert data("key", "disable", made["id"])["state"] == "disabled"
    assert data("key", "enable", made["id"])["state"] == "live"
    options = ("--limit", "money=2.50/30d", "--limit", "requests=5/1m", "--address", "192.0.2.0/24")
    changed = data("key", "restrict", made["id"], *options, "--max-concurrency", "2")
    assert changed["limits"] == ["money=2.5/30d", "requests=5/1m"]
    assert (changed["addresses"], changed["max_concurrency"]) == (["192.0.2.0/24"], 2)
    assert changed["models"] == []  # all of it is replaced
    rotated = data("key", "rotate", made["id"], "--grace", "1h")
    assert rotated["id"] == made["id"]
    assert rotated["key"] != made["key"]
    assert rotated["limits"] == changed["limits"]
    assert rotated["old_key_until"] is not None
    assert "limits" in done("key", "list")
    assert "192.0.2.0/24" in done("key", "list")
    assert "no rules" in done("key", "restrict", made["id"])
    assert "is deleted" in done("key", "delete", made["id"])
    assert data("key", "list") == []
    assert "--limit" in refused(2, "key", "restrict", made["id"], "--limit") + "--limit"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "a*b"), "claude-sonnet-*"),
        (("--address", "192.0.2.7/24"), "perhaps 192.0.2.0/24 is meant"),
        (("--address", "example.com"), "192.0.2.0/24"),
        (("--limit", "requests=5"), "requests=100/1d"),
        (("--limit", "requests=1.5/1d"), "requests=100/1d"),
        (("--limit", "requests=0/1d"), "more than nothing"),
        (("--limit", "requests=5/400d"), "366 days"),
        (("--limit", "requests=5/1d", "--limit", "requests=6/1d"), "the same period"),
    ],
)
def test_a_wrong_rule_is_refused_with_advice(
    ann: str, options: tuple[str, ...], words: str
) -> None:
    assert words in refused(2, "key", "create", "--user", ann, *options)
    assert data("key", "list") == []


def test_the_audit_log_shows_changes_of_the_command_line(ann: str) -> None:
    done("user", "suspend", ann, "--reason", "shared key")
    found = data("audit")
    assert [entry["action"] for entry in found] == ["user.suspend", "user.create"]
    assert found[0]["actor"].startswith("cli:")
    assert found[0]["after"]["suspended_reason"] == "shared key"
    assert data("audit", "--action", "user.c") == found[1:]
    assert "shared key" in done("audit", "--last", "1")
