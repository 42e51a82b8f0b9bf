"""A header that controls the simulator means one thing, or is refused."""

import pytest

from relay.simulator.refusal import Refusal
from relay.simulator.script import FAULTS, NORMAL, parse


def test_a_header_is_parsed() -> None:
    script = parse("tokens=200; pace=25;fault=cut;at=7;delay=0.5;retry-after=3;")
    assert (script.tokens, script.pace, script.fault, script.at) == (200, 25.0, "cut", 7)
    assert (script.delay, script.retry_after) == (0.5, "3")
    assert parse("") == NORMAL
    assert parse("status=429").fault == "status"
    for fault in FAULTS:
        assert parse(f"fault={fault}").fault == fault


@pytest.mark.parametrize(
    "header",
    [
        "token=1",
        "fault=cutt",
        "tokens=-1",
        "tokens=many",
        "pace=x",
        "status=200",
        "at=²",
        "stop=tired",
    ],
)
def test_a_misspelt_header_is_refused(header: str) -> None:
    with pytest.raises(Refusal, match="x-simulate"):
        parse(header)
