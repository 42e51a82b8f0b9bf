"""What the relay does not prevent is stated where its operator reads it."""

import tomllib
from pathlib import Path

import pytest

from tests.attacks.findings import FINDINGS

ROOT = Path(__file__).parents[2]
STATED = {
    "L2": "**Prompt caches are shared.**",
    "L3": "**Names in the log.**",
    "L7": "**Addresses in prompts.**",
}


@pytest.mark.parametrize("finding", STATED)
def test_a_limit_is_stated(finding: str) -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert STATED[finding] in text.partition("## What it does not promise")[2]


def test_shipped_plans_are_shared_by_the_keys_of_an_account() -> None:
    plans = tomllib.loads((ROOT / "relay.toml").read_text())["plan"]
    assert plans
    assert {plan.get("enforce") for plan in plans if plan.get("limits")} == {"account"}


def test_every_finding_has_its_attacks() -> None:
    names = [f"C{n}" for n in (1, 2)] + [f"H{n}" for n in range(1, 11)]
    names += [f"M{n}" for n in range(1, 13)] + [f"L{n}" for n in range(1, 10)]
    assert [finding.name for finding in FINDINGS] == names
    for finding in FINDINGS:
        for test in finding.tests:
            path, _, name = test.partition("::")
            assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text(), test
