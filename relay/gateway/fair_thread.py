"""A thread that works for each key in turn.

In the order of arrival, a key's eight large requests would be read before another key's first. Here
the first one waits for the work that is running, and then for one piece of each key before it.

Decides whose work is next. Must not know what the work is.
"""

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from relay.store.executor import PendingCall

T = TypeVar("T")


class FairThread:
    """A daemon thread and a queue for each key. `call` is for coroutines of an event loop."""

    def __init__(self, name: str) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, deque[PendingCall]] = {}  # the first key is the next one
        self._arrivals: SimpleQueue[None] = SimpleQueue()  # one for each call
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def call(self, key: str, function: Callable[[], T]) -> T:
        """Run `function` on the thread, after earlier calls of this key.

        If the caller is cancelled, a call that has not begun is dropped with all that it holds; one
        that has begun ends all the same.

        Raises:
            BaseException: the function raised it.
        """
        call = PendingCall(function)
        with self._lock:
            self._queues.setdefault(key, deque()).append(call)
        self._arrivals.put(None)
        try:
            result: T = await call.future
        except BaseException:
            self._drop(key, call)
            call.future.cancel()  # nobody takes its result
            raise
        return result

    def _drop(self, key: str, call: PendingCall) -> None:
        with self._lock:
            queue = self._queues.get(key)
            if queue is not None and call in queue:
                queue.remove(call)
                if not queue:
                    del self._queues[key]

    def _run(self) -> None:
        while True:
            self._arrivals.get()
            call = self._next()
            if call is not None:  # else it was dropped
                call.run()
            del call  # else its result would live until the next call

    def _next(self) -> PendingCall | None:
        """Take the first call of the key whose turn it is, and put the key behind all others."""
        with self._lock:
            key = next(iter(self._queues), None)
            if key is None:
                return None
            queue = self._queues.pop(key)
            call = queue.popleft()
            if queue:
                self._queues[key] = queue
            return call
