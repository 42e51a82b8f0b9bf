"""Writes the header lines that report a caller's limits.

Every response has the three groups of `limit_lines`. `unified_lines` are for Claude Code and
`codex_lines` for Codex, which show them to their users; `lines` are `limit_lines` and
`unified_lines`. `plans` decides which limit a group reports; a group without a limit in the
plan is left out, as no number would be true. A full limit resets at the present moment.

Every request passes here, so the text of a second is cached, and of each owner the lines
that stay the same until a window changes.
"""

from typing import Final, TypeAlias

from relay import clock
from relay.quota.bucket import Bucket
from relay.quota.exceeded import QuotaExceeded
from relay.quota.plans import FIVE_HOURS, HOUR, Plan
from relay.quota.state import KeyState, LimitCounters

_WARN_AT_THOUSANDTHS: Final = 750  # from here on Claude Code warns
_MAX_CACHED_SECONDS: Final = 4096
_MAX_CACHED_OWNERS: Final = 4096

_MILLISECONDS: Final = [b".%03dZ" % number for number in range(1000)]
_THOUSANDTHS: Final = [b"%g" % (number / 1000) for number in range(1001)]
_PERCENT: Final = [b"%g" % (number / 10) for number in range(1001)]
_seconds: Final[dict[int, bytes]] = {}  # epoch seconds → their text without the fraction

# Of an owner's counters: the plan, the window's size, thousandths used and reset (ms), the last two
# of the week, and the lines that depend on these alone.
_CachedLines: TypeAlias = tuple[tuple[Plan | None, int, int, int, int, int], bytes]
_lines_of: Final[dict[LimitCounters, _CachedLines]] = {}


def _group(name: bytes) -> bytes:
    return b"%(name)b-limit: %%d\r\n%(name)b-remaining: %%d\r\n%(name)b-reset: %%b\r\n" % {
        b"name": name
    }


_PRIMARY_GROUP: Final = _group(b"x-ratelimit")
_REQUESTS_GROUP: Final = _group(b"anthropic-ratelimit-requests")
_TOKENS_GROUP: Final = _group(b"anthropic-ratelimit-tokens")

_UNIFIED: Final = (
    b"anthropic-ratelimit-unified-status: %b\r\n"
    b"anthropic-ratelimit-unified-representative-claim: %b\r\n"
    b"anthropic-ratelimit-unified-reset: %d\r\n"
)
_CLAIM: Final = (
    b"anthropic-ratelimit-unified-%(name)b-status: %%b\r\n"
    b"anthropic-ratelimit-unified-%(name)b-utilization: %%b\r\n"
    b"anthropic-ratelimit-unified-%(name)b-reset: %%d\r\n"
)
_ALL_GROUPS: Final = (
    b"%bx-ratelimit-remaining: %d\r\n"
    b"anthropic-ratelimit-requests-remaining: %d\r\nanthropic-ratelimit-requests-reset: %b\r\n"
    b"anthropic-ratelimit-tokens-remaining: %d\r\nanthropic-ratelimit-tokens-reset: %b\r\n"
)
_FIVE_HOURS: Final = _CLAIM % {b"name": b"5h"}
_WEEK: Final = _CLAIM % {b"name": b"7d"}

_CODEX: Final = (
    b"x-codex-%(name)b-used-percent: %%b\r\n"
    b"x-codex-%(name)b-window-minutes: %%d\r\n"
    b"x-codex-%(name)b-reset-at: %%d\r\n"
)
_PRIMARY: Final = _CODEX % {b"name": b"primary"}
_SECONDARY: Final = _CODEX % {b"name": b"secondary"}


def _timestamp(moment: int) -> bytes:
    """Epoch milliseconds → `2026-04-08T12:01:00.000Z`."""
    second = moment // 1000
    try:
        text = _seconds[second]
    except KeyError:
        if len(_seconds) >= _MAX_CACHED_SECONDS:
            _seconds.clear()
        text = _seconds[second] = clock.rfc3339(second)[:-5].encode()
    return text + _MILLISECONDS[moment % 1000]


def lines(key_state: KeyState, now: float, error: QuotaExceeded | None = None) -> bytes:
    """`limit_lines` and `unified_lines`; the order of the lines may differ."""
    counters = key_state.counters
    hours, week = counters.five_hours, counters.week
    pace, tokens = counters.request_pace, counters.token_pace
    if error or hours is None or week is None or pace is None or tokens is None:
        return limit_lines(key_state, now) + unified_lines(key_state, now, error)
    moment = int(now * 1000)
    remaining, reset = hours.remaining_and_reset(moment)
    week_remaining, week_reset = week.remaining_and_reset(moment)
    pace_remaining, pace_reset = pace.remaining_and_reset(moment)
    tokens_remaining, tokens_reset = tokens.remaining_and_reset(moment)
    used = (hours.size - remaining) * 1000 // hours.size
    week_used = (week.size - week_remaining) * 1000 // week.size
    windows = (counters.plan, hours.size, used, reset, week_used, week_reset)
    cached = _lines_of.get(counters)
    if cached is None or windows != cached[0]:
        sizes = b"".join(
            b"%b-limit: %d\r\n" % group
            for group in (
                (b"x-ratelimit", hours.size),
                (b"anthropic-ratelimit-requests", pace.size),
                (b"anthropic-ratelimit-tokens", tokens.size),
            )
        )
        unified = unified_lines(key_state, now)
        if len(_lines_of) >= _MAX_CACHED_OWNERS:
            _lines_of.clear()
        cached = windows, b"%bx-ratelimit-reset: %b\r\n%b" % (sizes, _timestamp(reset), unified)
        _lines_of[counters] = cached
    return _ALL_GROUPS % (
        cached[1],
        remaining,
        pace_remaining,
        _timestamp(pace_reset),
        tokens_remaining,
        _timestamp(tokens_reset),
    )


def limit_lines(key_state: KeyState, now: float) -> bytes:
    """`x-ratelimit-*`, `anthropic-ratelimit-requests-*` and `-tokens-*`."""
    moment = int(now * 1000)
    counters = key_state.counters
    groups = (
        (_PRIMARY_GROUP, counters.primary),
        (_REQUESTS_GROUP, counters.request_pace),
        (_TOKENS_GROUP, counters.token_pace),
    )
    return b"".join([_group_lines(form, bucket, moment) for form, bucket in groups if bucket])


def _group_lines(form: bytes, bucket: Bucket, moment: int) -> bytes:
    remaining, reset = bucket.remaining_and_reset(moment)
    return form % (bucket.size, remaining, _timestamp(reset))


def _claim(bucket: Bucket, moment: int) -> tuple[bytes, int, int]:
    """Status, thousandths used (rounded down) and reset in epoch seconds (rounded up)."""
    remaining, reset = bucket.remaining_and_reset(moment)
    used = (bucket.size - remaining) * 1000 // bucket.size
    status = b"allowed" if used < _WARN_AT_THOUSANDTHS else b"allowed_warning"
    return status, used, -(-reset // 1000)


def unified_lines(key_state: KeyState, now: float, error: QuotaExceeded | None = None) -> bytes:
    """`anthropic-ratelimit-unified-*`: how much of the 5-hour and the weekly limit is used.

    The representative claim is the limit used most or, in an error, the exceeded one. Claude
    Code takes `rejected` beside `retry-after` for more than a passing throttle, so limits of
    up to an hour never report it.
    """
    moment = int(now * 1000)
    five_hours, week = key_state.counters.five_hours, key_state.counters.week
    if error is not None:
        limit, resets_at = error.limit, error.resets_at
        if limit is not None and resets_at is not None and limit.per > HOUR:
            by_hours = limit.per <= FIVE_HOURS
            return _rejected_lines(five_hours, week, moment, by_hours, resets_at)
    if five_hours is not None and week is not None:
        claim, other = _claim(five_hours, moment), _claim(week, moment)
        shown, name = (claim, b"five_hour") if claim[1] >= other[1] else (other, b"seven_day")
        head = _UNIFIED % (shown[0], name, shown[2])
        return head + _claim_lines(_FIVE_HOURS, claim) + _claim_lines(_WEEK, other)
    for bucket, name, form in (
        (five_hours, b"five_hour", _FIVE_HOURS),
        (week, b"seven_day", _WEEK),
    ):
        if bucket is not None:
            claim = _claim(bucket, moment)
            return _UNIFIED % (claim[0], name, claim[2]) + _claim_lines(form, claim)
    return b""


def _claim_lines(form: bytes, claim: tuple[bytes, int, int]) -> bytes:
    status, used, reset = claim
    return form % (status, _THOUSANDTHS[used], reset)


def _rejected_lines(
    five_hours: Bucket | None, week: Bucket | None, moment: int, by_hours: bool, resets_at: int
) -> bytes:
    """The exceeded limit as rejected, and the other one as it stands."""
    text = _UNIFIED % (b"rejected", b"five_hour" if by_hours else b"seven_day", resets_at)
    for bucket, form, exceeded in (
        (five_hours, _FIVE_HOURS, by_hours),
        (week, _WEEK, not by_hours),
    ):
        if bucket is not None:
            status, used, reset = _claim(bucket, moment)
            text += _claim_lines(form, (b"rejected" if exceeded else status, used, reset))
    return text


def codex_lines(key_state: KeyState, now: float) -> bytes:
    """`x-codex-primary-*` and `x-codex-secondary-*`, which Codex shows as the plan's meters."""
    moment = int(now * 1000)
    counters = key_state.counters
    text = b""
    for bucket, form in ((counters.primary, _PRIMARY), (counters.secondary, _SECONDARY)):
        if bucket is not None:
            _, used, reset = _claim(bucket, moment)
            text += form % (_PERCENT[used], bucket.per // 60_000, reset)
    return text
