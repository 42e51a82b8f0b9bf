"""An honest caller beside an attack: a stream that is read on, and requests that are answered.

Runs on a thread with sockets of its own, so that the work of a test's loop is none of its gaps.
"""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from tests.fakes.caller import request

MODEL = "claude-haiku-4-5"
_WAIT_SECONDS = 30

callers: list["HonestCaller"] = []  # all that there have been, for `tests.attacks.suite`


@contextlib.contextmanager
def distant_upstream() -> Iterator[str]:
    """The URL of an upstream in a process of its own, so that its work is not this one's."""
    command = [sys.executable, "-m", "tests.attacks.distant"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


class HonestCaller:
    """Reads a stream without end from `start` to `stop`.

    `gaps`: seconds between two events. `statuses`: those of its requests, 0 for no answer.
    """

    def __init__(self, port: int, key: str, model: str = MODEL) -> None:
        self.gaps: list[float] = []
        self.statuses: list[int] = []
        self._port = port
        self._key = key
        self._model = model
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_WAIT_SECONDS)
        self._thread = threading.Thread(target=self._read, daemon=True)
        callers.append(self)

    def start(self) -> None:
        """Ask for the stream; returns at once."""
        body = {"model": self._model, "max_tokens": 9, "stream": True, "messages": []}
        self._socket.sendall(request(self._key, body))
        self._thread.start()

    @property
    def reads(self) -> bool:
        """Whether the stream goes on."""
        return self._thread.is_alive()

    def ask(self) -> int:
        """The status of a request of this caller."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_WAIT_SECONDS)
        status = 0
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(connection),
        ):
            body = json.dumps({"model": self._model, "max_tokens": 9, "messages": []})
            connection.request("POST", "/v1/messages", body, {"x-api-key": self._key})
            status = connection.getresponse().status
        self.statuses.append(status)
        return status

    def stop(self) -> None:
        """End the stream."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_WAIT_SECONDS)
        self._socket.close()

    def _read(self) -> None:
        before = 0.0
        with contextlib.suppress(OSError):
            while data := self._socket.recv(65536):
                now = time.monotonic()
                if b"event:" in data:
                    if before:
                        self.gaps.append(now - before)
                    before = now


def percentile(gaps: list[float], share: float) -> float:
    """The gap that this share of all gaps does not exceed; 0 without any."""
    return sorted(gaps)[int(share * (len(gaps) - 1))] if gaps else 0.0
