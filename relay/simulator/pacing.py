"""Streams with a fixed number of events per second, many at once, on few timers.

Decides when each stream writes. All streams of one pace share a ticker; its period is divided
into slots, so that they do not all write in the same instant. A stream whose peer reads too
slowly skips its turn.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from relay.net.exchange import Exchange

_SLOTS: Final = 8
_MIN_TICK_SECONDS: Final = 0.002


class _Flow:
    """One stream, and the index of its next event."""

    __slots__ = ("done", "events", "exchange", "next")

    def __init__(self, exchange: Exchange, events: Sequence[bytes]) -> None:
        self.exchange = exchange
        self.events = events
        self.next = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Ticker:
    """All streams of one pace."""

    def __init__(self, pace: float, pacer: "Pacer") -> None:
        self.pace = pace
        self._pacer = pacer
        self._loop = asyncio.get_running_loop()
        period = 1 / pace
        count = max(1, min(_SLOTS, int(period / _MIN_TICK_SECONDS)))
        # Above 500 events per second a stream writes several at once.
        self._per_turn = max(1, round(_MIN_TICK_SECONDS / period))
        self._interval = max(period / count, _MIN_TICK_SECONDS if self._per_turn > 1 else 0.0)
        self._slots: list[list[_Flow]] = [[] for _ in range(count)]
        self._turn = 0
        self._at = self._loop.time() + self._interval
        self._handle = self._loop.call_at(self._at, self._tick)

    def add(self, flow: _Flow) -> None:
        min(self._slots, key=len).append(flow)

    def stop(self) -> None:
        self._handle.cancel()

    def _tick(self) -> None:
        self._turn = (self._turn + 1) % len(self._slots)
        flows = self._slots[self._turn]
        ended = False
        for flow in flows:
            exchange = flow.exchange
            if exchange.paused or flow.done.done():
                ended = ended or flow.done.done()
                continue
            events, at = flow.events, flow.next
            for _ in range(self._per_turn):
                exchange.write(events[at])
                at += 1
                if at == len(events):
                    flow.done.set_result(None)
                    ended = True
                    break
            flow.next = at
        if ended:
            flows[:] = [flow for flow in flows if not flow.done.done()]
            if not any(self._slots):
                self._pacer.forget(self)
                return
        now = self._loop.time()
        self._at += self._interval
        if self._at < now - 1:  # the process was suspended: no burst to catch up
            self._at = now + self._interval
        self._handle = self._loop.call_at(self._at, self._tick)


class Pacer:
    """Sends events at a given pace."""

    def __init__(self) -> None:
        self._tickers: dict[float, _Ticker] = {}

    def __repr__(self) -> str:
        return f"<Pacer {sorted(self._tickers)}>"

    async def send(self, exchange: Exchange, events: Sequence[bytes], pace: float) -> None:
        """Write all `events`, `pace` of them per second."""
        if not events:
            return
        flow = _Flow(exchange, events)
        ticker = self._tickers.get(pace)
        if ticker is None:
            ticker = self._tickers[pace] = _Ticker(pace, self)
        ticker.add(flow)
        try:
            await flow.done
        finally:
            flow.done.cancel()  # if the peer left, the ticker drops the flow at its next turn

    def forget(self, ticker: _Ticker) -> None:
        """Drop a ticker that has no stream left."""
        self._tickers.pop(ticker.pace, None)

    def stop(self) -> None:
        """Stop all tickers."""
        for ticker in self._tickers.values():
            ticker.stop()
        self._tickers.clear()
