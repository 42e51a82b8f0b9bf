"""Which signatures are believed."""

import pytest

from relay.payments.signature import SignatureError, verify
from relay.secret import Secret
from tests.payments.recorded import SECRET, event, signed

NOW = 1_796_000_000.0
BODY = event("session_paid")
RIGHT = signed(BODY, moment=NOW)
MOMENT, _, DIGEST = RIGHT.partition(",v1=")
OTHER = signed(BODY, "whsec_other", NOW).partition(",v1=")[2]


def check(header: str, body: bytes = BODY, now: float = NOW) -> None:
    verify(header, body, Secret(SECRET), now)


@pytest.mark.parametrize(
    "header",
    [
        RIGHT,
        f"{RIGHT},v0={'0' * 64}",
        f"{MOMENT}, v1={DIGEST}",
        f"v1={DIGEST},{MOMENT}",
        pytest.param(f"{MOMENT},v1={OTHER},v1={DIGEST}", id="second of two"),
        pytest.param(f"{MOMENT},v1={DIGEST},v1={OTHER}", id="first of two"),
    ],
)
def test_a_signature_of_stripe_is_believed(header: str) -> None:
    check(header)


@pytest.mark.parametrize("late", [-299, 299])
def test_a_signature_holds_for_five_minutes(late: float) -> None:
    check(RIGHT, now=NOW + late)


@pytest.mark.parametrize(
    "header",
    [
        "", ",", "=", "t=", "v1=", MOMENT, f"v1={DIGEST}", f",v1={DIGEST}", f"t=x,v1={DIGEST}",
        f"t=-5,v1={DIGEST}", f"t={'9' * 13},v1={DIGEST}", f"t=१७,v1={DIGEST}",
        f"{MOMENT},v0={DIGEST}", f"{MOMENT},v1={OTHER}", f"{MOMENT},v1={DIGEST[:-1]}",
        f"{MOMENT},v1={DIGEST.upper()}", f"{MOMENT},v1=é\ud800",
        f"{MOMENT}0,v1={DIGEST}", f"{MOMENT},v1={DIGEST}" + ",v1=0" * 16,
    ],
)  # fmt: skip
def test_any_other_is_refused(header: str) -> None:
    with pytest.raises(SignatureError):
        check(header)


@pytest.mark.parametrize("late", [-301, 301, 86_400])
def test_an_old_one_is_refused(late: float) -> None:
    with pytest.raises(SignatureError, match="five minutes"):
        check(RIGHT, now=NOW + late)


@pytest.mark.parametrize("body", [BODY + b" ", BODY[:-1], b""])
def test_another_body_is_refused(body: bytes) -> None:
    with pytest.raises(SignatureError, match="no signature fits"):
        check(RIGHT, body)
