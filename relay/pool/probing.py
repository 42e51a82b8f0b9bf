"""Probes of the relay's own: a small, free request that finds out whether an upstream answers.

No caller's request is risked on an upstream that may be silent. Any answer but a failure of the
upstream shows that it works: also a 404, of an upstream that does not count tokens.

Decides when to probe and what a probe shows. Must not know what an outage follows from: that is
for `health`.
"""

import asyncio
import logging
from typing import Final

import orjson

from relay.errors import RelayError
from relay.net.deadlines import Deadlines
from relay.net.runner import CoroutineRunner
from relay.net.upstream.connection import UpstreamError
from relay.pool.leases import Upstreams
from relay.pool.upstream import Upstream

_log = logging.getLogger("relay.pool")

_PROBE_SECONDS: Final = 5.0  # until the head of its answer
_FIELDS: Final = b"content-type: application/json\r\nanthropic-version: 2023-06-01\r\n"
_NOT_IMPLEMENTED: Final = 501  # of count_tokens: the upstream answers


async def probe(upstream: Upstream, model: str, deadlines: Deadlines) -> str:
    """Send a probe: count_tokens of one word. Must run in a `CoroutineRunner`.

    Returns the reason for which the upstream does not work; empty if it answers.
    """
    body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
    head = upstream.messages_head(_FIELDS, len(body), counting=True)
    try:
        connection = await upstream.pool.connect()
        try:
            answer = connection.send(head, body)
            connection.deadline = min(connection.deadline, deadlines.now + _PROBE_SECONDS)
            response = await answer
        finally:
            connection.close()
    except UpstreamError as failure:
        return f"a probe: {failure}"
    if response.status < 500 or response.status == _NOT_IMPLEMENTED:
        return ""
    return f"a probe: {response.status}"


class Prober:
    """Probes the upstreams whose health asks for it, at each tick."""

    def __init__(self, upstreams: Upstreams, deadlines: Deadlines) -> None:
        self._upstreams = upstreams
        self._deadlines = deadlines
        self._running: dict[str, CoroutineRunner] = {}
        deadlines.each_tick(self._on_tick)

    def stop(self) -> None:
        """Cancel the probes in flight."""
        for runner in list(self._running.values()):
            runner.cancel()

    def _on_tick(self) -> None:
        now = self._upstreams.now()
        for upstream in self._upstreams:
            health = upstream.health
            if health.probe_at > now or health.paused or upstream.name in self._running:
                continue
            health.probe_started()
            runner = self._running[upstream.name] = CoroutineRunner(self._probe(upstream))
            runner.step()

    async def _probe(self, upstream: Upstream) -> None:
        health = upstream.health
        try:
            reason = await probe(upstream, health.probe_model, self._deadlines)
            if reason:
                if not health.failing:
                    _log.warning("upstream %s: %s", upstream.name, reason)
                health.probe_failed(reason, self._upstreams.now())
            else:
                health.probe_answered()
                self._upstreams.wake()
        except asyncio.CancelledError:  # the relay stops
            pass
        except RelayError:  # no descriptor is left: nothing was found out
            health.probe_later(self._upstreams.now())
        except Exception:
            health.probe_later(self._upstreams.now())
            _log.exception("upstream %s: its probe failed", upstream.name)
        finally:
            self._running.pop(upstream.name, None)
