"""Polls vendors for the quota that is left in an upstream's plan.

A vendor that refuses a request for want of quota may not state until when, or its plan may be
full again sooner. So an upstream with `config.VendorSettings.quota` is polled at intervals. If
quota is left, an outage for want of quota that began before the poll ends. A poll never begins an
outage, and a failed one changes nothing.

Decides when to poll and which numbers of the answer count. Must not know other outages: those are
for `vendor_errors` and `health`.
"""

import asyncio
import logging
import math
import re
from collections.abc import Iterable
from typing import Final

import orjson

from relay import config
from relay.errors import RelayError
from relay.net.runner import CoroutineRunner
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.connection import UpstreamError
from relay.pool import clock
from relay.pool.leases import Upstreams
from relay.pool.upstream import Upstream

_log = logging.getLogger("relay.pool")

_CHECK_INTERVAL_SECONDS: Final = 1.0  # between two checks for due polls
_FIRST_POLL_SECONDS: Final = 10.0  # from the beginning of an outage to the first poll
_POLL_TIMEOUT_SECONDS: Final = 30.0
_MAX_QUOTA: Final = 1e18  # a larger number is no quota
_NUMBER: Final = re.compile(r"\s*-?[0-9]{1,18}(?:\.[0-9]{1,18})?\s*", re.ASCII)


class _PollError(Exception):
    """A poll without a number; the text is the reason."""


class PollState:
    """The polls of one upstream. Moments by the pool's clock."""

    __slots__ = ("due_at", "failed", "paths", "polled_at", "quota", "runner", "upstream")

    def __init__(self, upstream: Upstream, quota: config.PlanPollSettings, now: float) -> None:
        self.upstream = upstream
        self.quota = quota
        self.paths = [path.strip().split(".") for path in quota.left.split(",")]
        self.due_at = now + quota.every
        self.polled_at: float | None = None  # the latest poll
        self.failed = False  # the latest poll failed, and that was logged
        self.runner: CoroutineRunner | None = None  # the poll in flight

    def is_due(self, now: float) -> bool:
        """Whether to poll now: at intervals, and the first time soon after an outage began."""
        health = self.upstream.health
        if self.runner is not None or health.paused:
            return False
        if self.polled_at is None and (since := health.quota_outage_since()) is not None:
            # `min`: a repeated outage does not put the poll off.
            self.due_at = min(self.due_at, since + _FIRST_POLL_SECONDS)
        return now >= self.due_at

    def is_late(self, now: float) -> bool:
        """Whether the poll in flight has timed out."""
        return (
            self.runner is not None
            and self.polled_at is not None
            and now > self.polled_at + _POLL_TIMEOUT_SECONDS
        )

    def start(self, now: float) -> None:
        """A poll begins; the next one is due an interval later."""
        self.polled_at, self.due_at = now, now + self.quota.every

    def record(self, document: object, polled_at: float) -> bool:
        """Record the answer of a poll. Returns whether that ended an outage for want of quota.

        Raises:
            _PollError: the document has no number at any of the paths.
        """
        numbers = remaining(document, self.paths)
        if not numbers:
            raise _PollError(f"no number at {self.quota.left}")
        self.upstream.quota_left = math.floor(min(numbers))
        return min(numbers) > 0 and self.upstream.health.end_quota_outage(polled_at)


class PlanPoller:
    """Polls all upstreams whose vendor can be polled."""

    def __init__(self, upstreams: Upstreams) -> None:
        now = clock.now()
        self._upstreams = upstreams
        self._polls = [
            PollState(upstream, upstream.vendor.quota, now)
            for upstream in upstreams
            if upstream.vendor.quota is not None
        ]

    def polls(self, upstreams: Upstreams) -> bool:
        """Whether these are the polls of `upstreams` as they are now."""
        due = [(one, one.vendor.quota) for one in upstreams if one.vendor.quota is not None]
        return due == [(poll.upstream, poll.quota) for poll in self._polls]

    async def run(self) -> None:
        """Poll until cancelled; return at once if no vendor can be polled."""
        try:
            while self._polls:
                self.check(clock.now())
                await asyncio.sleep(_CHECK_INTERVAL_SECONDS)
        finally:
            for poll in self._polls:
                if poll.runner is not None:
                    poll.runner.cancel()

    def check(self, now: float) -> None:
        """Start the polls that are due and cancel those that are late."""
        for poll in self._polls:
            if poll.is_late(now):
                self._log_failure(poll, f"no answer within {_POLL_TIMEOUT_SECONDS:.0f} s")
                assert poll.runner is not None
                poll.runner.cancel()
            elif poll.is_due(now):
                poll.start(now)
                poll.runner = runner = CoroutineRunner(self._poll(poll, now))
                runner.step()

    async def _poll(self, poll: PollState, now: float) -> None:
        upstream = poll.upstream
        try:
            ended = poll.record(await _document(upstream, poll.quota.path), now)
        except (UpstreamError, RelayError, _PollError) as error:
            self._log_failure(poll, str(error))
        except asyncio.CancelledError:  # it timed out, or the relay stops
            pass
        except Exception:
            _log.exception("upstream %s: polling its plan failed", upstream.name)
        else:
            poll.failed = False
            if ended:
                _log.info("upstream %s: its vendor reports quota again", upstream.name)
                self._upstreams.wake()
        finally:
            poll.runner = None

    def _log_failure(self, poll: PollState, reason: str) -> None:
        """Log a failure, unless the poll before failed as well."""
        if not poll.failed:
            poll.failed = True
            _log.info(
                "upstream %s: cannot read the quota left in its plan: %s",
                poll.upstream.name,
                reason,
            )


def remaining(document: object, paths: Iterable[list[str]]) -> list[float]:
    """The numbers at `paths` in a JSON document; a string may stand for a number.

    A step is a member's name, or `*` for every element of an array or every value of an object.
    A path without a number is left out.
    """
    numbers: list[float] = []
    for path in paths:
        values = [document]
        for step in path:
            values = [inner for outer in values for inner in _step(outer, step)]
        numbers += [number for value in values if (number := _number(value)) is not None]
    return numbers


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < _MAX_QUOTA else None
    return None


def _step(value: object, step: str) -> Iterable[object]:
    if isinstance(value, dict):
        if step == "*":
            return value.values()
        return (value[step],) if step in value else ()
    return value if isinstance(value, list) and step == "*" else ()


async def _document(upstream: Upstream, path: str) -> object:
    """The document at `path` of an upstream's origin. Must run in a `CoroutineRunner`.

    Raises:
        UpstreamError, RelayError: there is no answer.
        _PollError: the answer is no JSON document.
    """
    try:
        status, payload = await _get(upstream, path)
    except UpstreamError as failure:
        if not failure.reused_and_unanswered:
            raise
        status, payload = await _get(upstream, path)  # the idle connection had been closed
    if status != 200:
        raise _PollError(f"it answered {status}")
    try:
        document: object = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise _PollError("its answer is no JSON") from None
    return document


async def _get(upstream: Upstream, path: str) -> tuple[int, bytes]:
    pool = upstream.pool
    connection = pool.take() or await pool.connect()
    try:
        response = await connection.send(upstream.own_head(path), b"")
        body = ResponseBody(connection, response, keep_framing=False)
        await body.look_ahead()
    except BaseException:
        connection.close()
        raise
    pool.put(connection, reusable=body.complete and body.reusable)
    if not body.complete:
        raise _PollError("its answer is too long")
    return response.status, body.payload
