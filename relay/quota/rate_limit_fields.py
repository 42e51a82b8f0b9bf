"""What a caller has left, as header lines ready for the head of an answer.

Three groups on every answer (`limit_lines`), and the meters that clients show by themselves:
`unified_lines` for Claude Code, `codex_lines` for Codex; `lines` are the first two. Which limit
feeds which group is decided in `plans`; a group that the plan has no limit for is left out, for
there is no honest number to put there. A limit that is whole resets at this very moment.

Written for the path of every request: octets from the start; a moment is formatted once for
all that share its second, and what tells of windows once for as long as it stays the same.
"""

from typing import Final

from relay import clock
from relay.quota.bucket import Bucket
from relay.quota.exceeded import QuotaExceeded
from relay.quota.plans import FIVE_HOURS, HOUR
from relay.quota.state import KeyState

_WARN_AT: Final = 750  # thousandths; from here on Claude Code warns
_MOST_SECONDS: Final = 4096

_MILLISECONDS: Final = [b".%03dZ" % number for number in range(1000)]
_THOUSANDTHS: Final = [b"%g" % (number / 1000) for number in range(1001)]
_PERCENT: Final = [b"%g" % (number / 10) for number in range(1001)]
_seconds: Final[dict[int, bytes]] = {}


def _group(name: bytes) -> bytes:
    return b"%(name)b-limit: %%d\r\n%(name)b-remaining: %%d\r\n%(name)b-reset: %%b\r\n" % {
        b"name": name
    }


_MAIN: Final = _group(b"x-ratelimit")
_PACE: Final = _group(b"anthropic-ratelimit-requests")
_TOKENS: Final = _group(b"anthropic-ratelimit-tokens")

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
_CHANGING: Final = (
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


def _text(moment: int) -> bytes:
    """Epoch milliseconds → `2026-04-08T12:01:00.000Z`."""
    second = moment // 1000
    text = _seconds.get(second)
    if text is None:
        if len(_seconds) >= _MOST_SECONDS:
            _seconds.clear()
        text = _seconds[second] = clock.rfc3339(second)[:-5].encode()
    return text + _MILLISECONDS[moment % 1000]


def lines(key_state: KeyState, now: float, refused: QuotaExceeded | None = None) -> bytes:
    """`limit_lines` and `unified_lines`, in any order of the lines."""
    counters = key_state.counters
    hours, week, pace, tokens = (
        counters.five_hours,
        counters.week,
        counters.request_pace,
        counters.token_pace,
    )
    if refused or hours is None or week is None or pace is None or tokens is None:
        return limit_lines(key_state, now) + unified_lines(key_state, now, refused)
    moment = int(now * 1000)
    left, reset = hours.remaining_and_reset(moment)
    week_left, week_reset = week.remaining_and_reset(moment)
    pace_left, pace_reset = pace.remaining_and_reset(moment)
    tokens_left, tokens_reset = tokens.remaining_and_reset(moment)
    used = (hours.size - left) * 1000 // hours.size
    week_used = (week.size - week_left) * 1000 // week.size
    told = (used, reset, week_used, week_reset)
    if told != counters.told:  # tells of windows, and of what only another plan changes
        counters.told = told
        sizes = b"".join(
            b"%b-limit: %d\r\n" % group
            for group in (
                (b"x-ratelimit", hours.size),
                (b"anthropic-ratelimit-requests", pace.size),
                (b"anthropic-ratelimit-tokens", tokens.size),
            )
        )
        windows = unified_lines(key_state, now)
        counters.told_lines = b"%bx-ratelimit-reset: %b\r\n%b" % (sizes, _text(reset), windows)
    return _CHANGING % (
        counters.told_lines,
        left,
        pace_left,
        _text(pace_reset),
        tokens_left,
        _text(tokens_reset),
    )


def limit_lines(key_state: KeyState, now: float) -> bytes:
    """`x-ratelimit-*`, `anthropic-ratelimit-requests-*` and `-tokens-*`."""
    moment = int(now * 1000)
    counters = key_state.counters
    groups = (
        (_MAIN, counters.primary),
        (_PACE, counters.request_pace),
        (_TOKENS, counters.token_pace),
    )
    return b"".join([_told(form, bucket, moment) for form, bucket in groups if bucket])


def _told(form: bytes, bucket: Bucket, moment: int) -> bytes:
    left, reset = bucket.remaining_and_reset(moment)
    return form % (bucket.size, left, _text(reset))


def _claim(bucket: Bucket, moment: int) -> tuple[bytes, int, int]:
    """Status, thousandths used (rounded down) and reset in epoch seconds (rounded up)."""
    left, reset = bucket.remaining_and_reset(moment)
    used = (bucket.size - left) * 1000 // bucket.size
    return b"allowed" if used < _WARN_AT else b"allowed_warning", used, -(-reset // 1000)


def unified_lines(key_state: KeyState, now: float, refused: QuotaExceeded | None = None) -> bytes:
    """`anthropic-ratelimit-unified-*`: how far the 5-hour and the weekly limit are used.

    The claim named is the one used most; in a refusal, the one that refused. `rejected`
    beside `retry-after` tells Claude Code that this is no passing throttle, so a refusal by a
    limit of up to an hour is none.
    """
    moment = int(now * 1000)
    five_hours, week = key_state.counters.five_hours, key_state.counters.week
    if refused is not None:
        limit, at = refused.limit, refused.resets_at
        if limit is not None and at is not None and limit.per > HOUR:
            return _rejected(five_hours, week, moment, limit.per <= FIVE_HOURS, at)
    if five_hours is not None and week is not None:
        claim, other = _claim(five_hours, moment), _claim(week, moment)
        most, name = (claim, b"five_hour") if claim[1] >= other[1] else (other, b"seven_day")
        head = _UNIFIED % (most[0], name, most[2])
        return head + _claimed(_FIVE_HOURS, claim) + _claimed(_WEEK, other)
    for bucket, name, form in (
        (five_hours, b"five_hour", _FIVE_HOURS),
        (week, b"seven_day", _WEEK),
    ):
        if bucket is not None:
            claim = _claim(bucket, moment)
            return _UNIFIED % (claim[0], name, claim[2]) + _claimed(form, claim)
    return b""


def _claimed(form: bytes, claim: tuple[bytes, int, int]) -> bytes:
    status, used, reset = claim
    return form % (status, _THOUSANDTHS[used], reset)


def _rejected(
    five_hours: Bucket | None, week: Bucket | None, moment: int, by_hours: bool, at: int
) -> bytes:
    """Rejected by the limit of hours or by that of days; the other as it stands."""
    told = _UNIFIED % (b"rejected", b"five_hour" if by_hours else b"seven_day", at)
    for bucket, form, mine in ((five_hours, _FIVE_HOURS, by_hours), (week, _WEEK, not by_hours)):
        if bucket is not None:
            status, used, reset = _claim(bucket, moment)
            told += _claimed(form, (b"rejected" if mine else status, used, reset))
    return told


def codex_lines(key_state: KeyState, now: float) -> bytes:
    """`x-codex-primary-*` and `x-codex-secondary-*`, which Codex shows as the plan's meters."""
    moment = int(now * 1000)
    counters = key_state.counters
    told = b""
    for bucket, form in ((counters.primary, _PRIMARY), (counters.secondary, _SECONDARY)):
        if bucket is not None:
            _, used, reset = _claim(bucket, moment)
            told += form % (_PERCENT[used], bucket.per // 60_000, reset)
    return told
