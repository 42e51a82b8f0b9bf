"""What is left of the upstreams' plans, as their vendors tell when they are asked: now and then.

A vendor that refuses because a quota is used up may not say until when, or its plan may be full
again sooner than it said. So where `config.VendorSettings.quota` tells where to ask, what is left
is read
once in a while, and an outage for want of quota that began before ends if there is some. A
reading never begins an outage, and one that fails changes nothing.

This decides when to ask and what the answer tells. What else an upstream's trouble means it must
not know: that is gateway.trouble's and gateway.health's.
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import Iterable
from typing import Final

import orjson

from relay import config
from relay.net.runner import CoroutineRunner
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.connection import UpstreamError
from relay.pool.leases import Upstreams
from relay.pool.upstream import Upstream

_log = logging.getLogger("relay.gateway")

_LOOK: Final = 1.0  # seconds between looks for readings that are due
_SOON: Final = 10.0  # seconds from the beginning of an outage to the first reading
_PATIENCE: Final = 30.0  # seconds for one reading
_MOST: Final = 1e18  # what is more than this is no number of anything
_NUMBER: Final = re.compile(r"\s*-?[0-9]{1,18}(?:\.[0-9]{1,18})?\s*", re.ASCII)


class _UnreadError(Exception):
    """There is no reading, and this is why."""


class PollState:
    """When an upstream is to be asked. Moments in epoch seconds."""

    __slots__ = ("asked", "due", "failed", "paths", "quota", "runner", "upstream")

    def __init__(self, upstream: Upstream, quota: config.PlanPollSettings, now: float) -> None:
        self.upstream = upstream
        self.quota = quota
        self.paths = [path.strip().split(".") for path in quota.left.split(",")]
        self.due = now + quota.every
        self.asked: float | None = None  # when it was last asked
        self.failed = False  # the last reading, and that was logged
        self.runner: CoroutineRunner | None = None  # the reading under way

    def is_due(self, now: float) -> bool:
        """Whether to ask now: every so often, and the first time soon after an outage began."""
        health = self.upstream.health
        if self.runner is not None or health.paused:
            return False
        outage = health.account
        if self.asked is None and outage is not None and outage.quota:
            # The first outage's moment stays, if the same trouble is met again meanwhile.
            self.due = min(self.due, outage.since + _SOON)
        return now >= self.due

    def is_late(self, now: float) -> bool:
        """Whether the reading under way has taken too long."""
        return self.runner is not None and self.asked is not None and now > self.asked + _PATIENCE


class PlanPoller:
    """Reads what the vendors of all upstreams tell."""

    def __init__(self, upstreams: Upstreams) -> None:
        now = time.time()
        self._upstreams = upstreams
        self._polls = [
            PollState(upstream, upstream.vendor.quota, now)
            for upstream in upstreams
            if upstream.vendor.quota is not None
        ]

    async def run(self) -> None:
        """Read for ever; return at once where no vendor can be asked."""
        try:
            while self._polls:
                self.look(time.time())
                await asyncio.sleep(_LOOK)
        finally:
            for poll in self._polls:
                if poll.runner is not None:
                    poll.runner.cancel()

    def look(self, now: float) -> None:
        """Begin what is due and give up what is late. `now` is epoch seconds."""
        for poll in self._polls:
            if poll.is_late(now):
                self._failed(poll, f"no answer within {_PATIENCE:.0f} s")
                assert poll.runner is not None
                poll.runner.cancel()
            elif poll.is_due(now):
                poll.asked, poll.due = now, now + poll.quota.every
                poll.runner = runner = CoroutineRunner(self._read(poll, now))
                runner.step()

    async def _read(self, poll: PollState, asked: float) -> None:
        upstream = poll.upstream
        try:
            numbers = left(await _document(upstream, poll.quota.path), poll.paths)
            if not numbers:
                raise _UnreadError(f"no number at {poll.quota.left}")
        except (UpstreamError, _UnreadError) as error:
            self._failed(poll, str(error))
        except asyncio.CancelledError:  # too late, or the relay stops
            pass
        except Exception:
            _log.exception("upstream %s: reading what is left of its plan failed", upstream.name)
        else:
            poll.failed = False
            upstream.left = math.floor(min(numbers))
            if min(numbers) > 0 and upstream.health.quota_is_back(asked):
                _log.info("upstream %s: its vendor says that there is quota again", upstream.name)
                self._upstreams.wake()
        finally:
            poll.runner = None

    def _failed(self, poll: PollState, reason: str) -> None:
        """Say it once, and again only after a reading that did not fail."""
        if not poll.failed:
            poll.failed = True
            _log.info(
                "upstream %s: what is left of its plan cannot be read: %s",
                poll.upstream.name,
                reason,
            )


def left(document: object, paths: Iterable[list[str]]) -> list[float]:
    """The numbers that are at any of `paths` in a JSON document; text may stand for a number.

    A step is a member's name, or `*`: every element of a list, every value of a table. What is
    not there, or is no number, is left out.
    """
    numbers: list[float] = []
    for path in paths:
        found = [document]
        for step in path:
            found = [inner for outer in found for inner in _step(outer, step)]
        numbers += [number for value in found if (number := _number(value)) is not None]
    return numbers


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < _MOST else None
    return None


def _step(value: object, step: str) -> Iterable[object]:
    if isinstance(value, dict):
        if step == "*":
            return value.values()
        return (value[step],) if step in value else ()
    return value if isinstance(value, list) and step == "*" else ()


async def _document(upstream: Upstream, path: str) -> object:
    """What the origin has at `path`, over a connection of the upstream's own. In a Drive.

    Raises:
        UpstreamError: there is no answer.
        _UnreadError: it is no JSON document.
    """
    try:
        status, payload = await _get(upstream, path)
    except UpstreamError as failure:
        if not failure.reused_and_unanswered:
            raise
        status, payload = await _get(upstream, path)  # that one had died while it was idle
    if status != 200:
        raise _UnreadError(f"it answered {status}")
    try:
        document: object = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise _UnreadError("its answer is no JSON") from None
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
        raise _UnreadError("its answer is too long")
    return response.status, body.payload
