"""When certificates are renewed and failed orders are tried again."""

from hypothesis import given
from hypothesis import strategies as st

from relay.net.acme.schedule import renewal_time, retry_delay

JITTER = st.floats(0, 1)
DAY = 86_400.0


@given(st.floats(0, 1e9), st.floats(DAY, 400 * DAY), JITTER)
def test_renewal_is_near_two_thirds_of_the_lifetime(
    start: float, lifetime: float, jitter: float
) -> None:
    share = (renewal_time(start, start + lifetime, jitter) - start) / lifetime
    assert 0.61 < share < 0.67


@given(st.integers(1, 100), JITTER)
def test_failures_make_the_tries_rarer(failures: int, jitter: float) -> None:
    assert 60 <= retry_delay(failures, 0) <= retry_delay(failures + 1, jitter)
    assert retry_delay(failures, jitter) <= 13.2 * 3600


def test_five_failures_take_more_than_an_hour() -> None:
    """Let's Encrypt allows five failed validations of a name per hour."""
    assert sum(retry_delay(failures, 0) for failures in range(1, 5)) > 3600


@given(st.integers(1, 10), JITTER, st.floats(0, 1e12))
def test_the_authority_may_ask_for_more_patience(
    failures: int, jitter: float, asked: float
) -> None:
    delay = retry_delay(failures, jitter, asked)
    assert delay >= min(asked, 7 * DAY)
    assert delay <= 7 * DAY + 1.2 * 3600 + 12 * 3600
