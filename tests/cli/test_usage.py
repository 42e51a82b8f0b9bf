"""`relay usage`: sums by user, key, model and day."""

import time
from typing import Any

from relay import clock
from tests.cli.command import data, done
from tests.cli.journal import write_requests
from tests.store.entries import admission

DAY = 86_400.0


def a_week(email: str) -> tuple[str, str]:
    """Two keys that were used today, yesterday and long ago; their ids."""
    user_id = data("user", "list")[0]["id"]
    named = data("key", "create", "--user", email, "--name", "laptop")["id"]
    plain = data("key", "create", "--user", email)["id"]
    now = time.time()
    requests = []
    for key_id, owner, ago, model in [
        (named, user_id, 0, "claude-sonnet-4-7"),
        (named, user_id, DAY, "claude-haiku-4-5"),
        (plain, user_id, 3 * DAY, "claude-sonnet-4-7"),
        (named, user_id, 8 * DAY, "claude-sonnet-4-7"),
        ("key_gone", "usr_gone", 0, "claude-sonnet-4-7"),
    ]:
        requests.append(admission(key_id=key_id, user_id=owner, time=now - ago, model=model))
    write_requests(*requests, running=[admission(time=now)], cost_micro=1_500_000)
    return named, plain


def test_usage_is_summed_up_by_user_key_model_and_day(ann: str) -> None:
    before = clock.rfc3339(time.time())
    named, plain = a_week(ann)
    shown = data("usage")
    assert list(shown) == ["since", "by", "usage", "total"]
    assert (shown["by"], shown["since"][13:]) == ("user", ":00:00.000Z")
    user_id = data("user", "list")[0]["id"]
    assert shown["usage"] == [
        {
            "user": ann, "id": user_id, "requests": 3, "refunded": 0, "input": 30,
            "output": 60, "cache_read": 9, "cache_write": 12, "estimated": 0,
            "cost_micro": 4_500_000,
        },
        {
            "user": "usr_gone", "id": "usr_gone", "requests": 1, "refunded": 0, "input": 10,
            "output": 20, "cache_read": 3, "cache_write": 4, "estimated": 0,
            "cost_micro": 1_500_000,
        },
    ]  # fmt: skip
    assert shown["total"] == {
        "requests": 4, "refunded": 0, "input": 40, "output": 80, "cache_read": 12,
        "cache_write": 16, "estimated": 0, "cost_micro": 6_000_000,
    }  # fmt: skip

    def table(*arguments: str) -> list[tuple[Any, ...]]:
        rows = data("usage", *arguments)["usage"]
        return [(*list(row.values())[:-8], row["requests"]) for row in rows]

    assert sorted(table("--by", "key")) == sorted(
        [(named, "laptop", ann, 2), (plain, "", ann, 1), ("key_gone", "", None, 1)]
    )
    assert table("--by", "model") == [("claude-sonnet-4-7", 3), ("claude-haiku-4-5", 1)]
    days = table("--by", "day", "--since", "30d")
    assert [count for _, count in days] == [1, 1, 1, 2]
    assert before[:10] <= days[-1][0]
    assert table("--since", "30d", "--user", ann.upper()) == [(ann, user_id, 4)]
    assert table("--by", "key", "--user", ann) == [(named, "laptop", ann, 2), (plain, "", ann, 1)]
    assert data("usage", "--since", "999999999d")["total"]["requests"] == 5


def test_the_usage_table_ends_with_the_total_in_dollars(ann: str) -> None:
    assert done("usage").startswith("Nothing was used since 2")
    a_week(ann)
    lines = done("usage", "--by", "key").splitlines()
    assert lines[0].startswith("Since 2")
    assert "cache read" in lines[2]
    assert lines[2].split()[-1] == "cost"
    total = next(line for line in lines if line.split()[:1] == ["total"])
    assert total.split()[-1] == "$6.00"
    assert total == [line for line in lines if line.strip()][-1]


def test_usage_of_an_unused_account_is_empty_with_a_zero_total(ann: str) -> None:
    shown = data("usage", "--user", ann)
    assert shown["usage"] == []
    assert set(shown["total"].values()) == {0}
