from pathlib import Path

from tests.cli.command import data, done, refused


def test_codes_are_made_listed_redeemed_and_revoked(ann: str, folder: Path) -> None:
    [made] = data("code", "credit", "2.50", "--note", "spring")
    assert made["code"].count("-") == 3
    assert data("code", "redeem", ann, made["code"].lower())["balance_micro"] == 2_500_000
    assert "already" in refused(1, "code", "redeem", ann, made["code"])
    batch = data("code", "plan", "pro", "30d", "--number", "3", "--csv", "codes.csv")
    assert "code" not in batch[0]
    lines = (folder / "codes.csv").read_text().splitlines()
    assert len(lines) == 4
    assert (folder / "codes.csv").stat().st_mode & 0o077 == 0
    assert "begins anew" in done("code", "redeem", ann, lines[1].split(",")[0])
    assert "goes on" in done("code", "redeem", ann, lines[2].split(",")[0])
    assert data("user", "list")[0]["plan"] == "pro"
    assert data("code", "revoke", batch[0]["batch"]) == {"revoked": 1}
    states = [one["state"] for one in data("code", "list", "--batch", batch[0]["batch"])]
    assert sorted(states) == ["revoked", "used", "used"]
    assert "…" in done("code", "list")
    assert "withdrawn" in refused(1, "code", "redeem", ann, lines[3].split(",")[0])
    assert done("code", "invite", "--uses", "2").splitlines()[0].count("-") == 3
    assert "no plan" in refused(2, "code", "plan", "none", "30d")
    assert "write US dollars" in refused(2, "code", "credit", "many")


def test_a_plan_for_a_time_is_started_and_extended(ann: str) -> None:
    first = data("user", "start-plan", ann, "pro", "30d")
    assert (first["plan"], first["plan_then"]) == ("pro", "free")
    later = data("user", "extend-plan", ann, "1d")
    assert later["plan_until"] > first["plan_until"]
    assert "then free" in done("user", "extend-plan", ann, "1d")
    assert "no duration" in refused(2, "user", "extend-plan", ann, "soon")
    done("user", "set-plan", ann, "free")
    assert "start-plan" in refused(1, "user", "extend-plan", ann, "1d")


def test_announcements_are_added_listed_and_removed(folder: Path) -> None:
    made = data("announce", "add", "Down at noon", "--maintenance", "--in", "1h", "--for", "2h")
    assert (made["kind"], made["shown"]) == ("maintenance", False)
    assert "is shown from" in done("announce", "add", "Hello", "--zh", "你好")
    assert [one["text"] for one in data("announce", "list")] == ["Hello", "Down at noon"]
    assert "is removed" in done("announce", "remove", made["id"])
    assert "announce list" in refused(1, "announce", "remove", made["id"])
    assert "no duration" in refused(2, "announce", "add", "x", "--in", "soon")


def test_an_incident_is_resolved(folder: Path) -> None:
    assert "needs a title" in refused(2, "announce", "add", "Slow", "--incident")
    words = ("--title", "Slow answers", "--title-zh", "响应缓慢")
    made = data("announce", "add", "We look into it", "--incident", *words)
    assert (made["kind"], made["title"], made["shown"]) == ("incident", "Slow answers", True)
    assert "is resolved" in done("announce", "resolve", made["id"])
    [shown] = data("announce", "list")
    assert shown["shown"] is False
    assert shown["resolved_at"]
    assert "no open announcement" in refused(1, "announce", "resolve", made["id"])


def test_a_refund_of_an_unknown_request_is_refused(ann: str) -> None:
    assert "was charged" in refused(1, "user", "refund", "req_none")
