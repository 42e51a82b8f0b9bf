"""Plans to test with, written as in relay.toml."""

from typing import Any

from relay import config
from relay.quota.plans import Plan, compile_plan

START = 1_775_649_660.0  # 2026-04-08T12:01:00Z

FREE = [
    {"requests": 40, "per": "5h"},
    {"requests": 200, "per": "7d"},
    {"requests": 60, "per": "1m"},
    {"tokens": 800_000, "per": "1m"},
]
STACKED = [{"requests": 40, "per": "5h"}, {"requests": 200, "per": "7d"}]


def _limit(table: dict[str, Any]) -> config.LimitSettings:
    return config.LimitSettings(**table | {"per": config.Duration(table["per"])})


def plan(*limits: dict[str, Any], **settings: Any) -> Plan:
    max_concurrency = settings.pop("max_concurrency", 0)
    compiled = compile_plan(
        config.PlanSettings(
            id="test",
            name="Test",
            limits=[_limit(limit) for limit in limits],
            **settings,
        )
    )
    object.__setattr__(compiled, "max_concurrency", max_concurrency)
    return compiled
