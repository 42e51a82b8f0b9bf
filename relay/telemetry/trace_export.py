"""Sends spans to a collector: OTLP over HTTP, in JSON, on a thread of its own.

The SDK of OpenTelemetry is not used. Spans are made when a request has ended, so there is nothing
to propagate or to instrument, and one POST of a plain document is all that is left.

Decides when spans are sent, sent again or dropped. A collector that stalls costs spans, which are
counted: it never stops the loop, the start or the end of the process. Must not know what a span is
made of: the `convert` callback makes it of whatever was added.
"""

import http.client
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from relay import __version__

_log = logging.getLogger("relay.telemetry")
_encode: Final = msgspec.json.Encoder().encode
_MAX_WAITING: Final = 4096  # requests whose spans are not sent yet
_MAX_BATCH: Final = 512
_INTERVAL_SECONDS: Final = 1.0
_ANSWER_TIMEOUT_SECONDS: Final = 10.0
_MAX_RETRY_SECONDS: Final = 60.0
_CLOSE_TIMEOUT_SECONDS: Final = 1.0
_MAX_ANSWER_OCTETS: Final = 16 * 1024
_WORTH_A_RETRY: Final = (429, 502, 503, 504)  # the collector is busy (OTLP specification)

Span = dict[str, Any]
Convert = Callable[[Any], list[Span]]
"""What was added, as spans in the JSON form of OTLP."""


class ExportError(Exception):
    """A batch was not taken; the message is one line. `retry` is the time until the next attempt,
    in seconds, None: as the number of failures has it; `final`: another one would fail, too."""

    def __init__(self, reason: str, *, retry: float | None = None, final: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry
        self.final = final


class TraceExporter:
    """`sent` and `dropped` count requests, whose spans go together."""

    def __init__(
        self, endpoint: str, service: str, fields: Callable[[], dict[str, str]], convert: Convert
    ) -> None:
        """`fields` are header fields of each POST, read anew each time. Raises ValueError."""
        self.sent = 0
        self.dropped = 0
        self._endpoint = urlsplit(endpoint)
        self._fields = fields
        self._convert = convert
        self._resource = {
            "attributes": [text("service.name", service), text("service.version", __version__)]
        }
        self._waiting: deque[Any] = deque()
        self._failures = 0  # in a row
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def add(self, item: Any) -> None:
        """Have the spans of an item sent. Never waits."""
        if len(self._waiting) >= _MAX_WAITING:
            self.dropped += 1
        else:
            self._waiting.append(item)

    def close(self) -> None:
        """Send the rest; waits a second at most."""
        self._stop.set()
        self._thread.join(timeout=_CLOSE_TIMEOUT_SECONDS)

    def _run(self) -> None:
        wait = _INTERVAL_SECONDS
        while not self._stop.wait(wait):
            wait = self._send_all()
        self._send_all()

    def _send_all(self) -> float:
        """Send what waits; returns the seconds until the next time."""
        while self._waiting:
            count = min(len(self._waiting), _MAX_BATCH)
            try:
                refused = self._post(self._body([self._waiting[n] for n in range(count)]))
            except ExportError as error:
                wait = self._fail(error, count)
                if not error.final:
                    return wait
            else:
                self._succeed(count, refused)
            for _ in range(count):
                self._waiting.popleft()
        return _INTERVAL_SECONDS

    def _body(self, items: list[Any]) -> bytes:
        spans = [span for item in items for span in self._convert(item)]
        scope = {"name": "relay", "version": __version__}
        scopes = [{"scope": scope, "spans": spans}]
        return _encode({"resourceSpans": [{"resource": self._resource, "scopeSpans": scopes}]})

    def _post(self, body: bytes) -> str:
        """Send a batch; returns why some of it was refused, or "". Raises ExportError."""
        url = self._endpoint
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.hostname or "", url.port, timeout=_ANSWER_TIMEOUT_SECONDS)
        own = {"content-type": "application/json", "user-agent": f"relay/{__version__}"}
        try:
            connection.request("POST", url.path or "/", body, {**self._fields(), **own})
            answer = connection.getresponse()
            octets, after = answer.read(_MAX_ANSWER_OCTETS), answer.headers.get("retry-after", "")
        except TimeoutError:
            raise ExportError(f"no answer within {_ANSWER_TIMEOUT_SECONDS:.0f} s") from None
        except ValueError as error:
            raise ExportError(f"traces.headers: {error}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ExportError(reason) from None
        finally:
            connection.close()
        if answer.status not in range(200, 300):
            retry = float(after) if after.isascii() and after.isdigit() else None
            final = answer.status not in _WORTH_A_RETRY
            raise ExportError(f"refused with status {answer.status}", retry=retry, final=final)
        return _partial_refusal(octets)

    def _succeed(self, count: int, refused: str) -> None:
        if self._failures:
            _log.warning("traces are sent again; %d requests have none", self.dropped)
        elif refused:
            _log.warning("the collector of traces has refused some spans: %s", refused)
        self._failures = 0
        self.sent += count

    def _fail(self, error: ExportError, count: int) -> float:
        """Note a failure; returns the seconds until the next attempt."""
        self._failures += 1
        if self._failures == 1:
            _log.warning("traces cannot be sent to %s: %s", self._endpoint.geturl(), error)
        if error.final or self._stop.is_set():
            self.dropped += count
        wait = _INTERVAL_SECONDS * 2 ** min(self._failures, 6) if error.retry is None else (
            error.retry
        )  # fmt: skip
        return min(wait, _MAX_RETRY_SECONDS)


def _partial_refusal(octets: bytes) -> str:
    """The words of an answer that has taken a part of a batch alone; "": it has taken all."""
    try:
        partial = msgspec.json.decode(octets).get("partialSuccess") or {}
        if not int(partial.get("rejectedSpans") or 0):
            return ""
        words = str(partial.get("errorMessage") or "without a reason")[:200]
        return words if words.isprintable() else "without a reason"
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError):
        return ""


def text(key: str, value: str) -> dict[str, Any]:
    """An attribute."""
    return {"key": key, "value": {"stringValue": value}}


def number(key: str, value: int) -> dict[str, Any]:
    """An attribute."""
    return {"key": key, "value": {"intValue": str(value)}}


def nanoseconds(seconds: float, us: int = 0) -> str:
    """A time of a span: epoch seconds and microseconds after it."""
    return str((int(seconds * 1e6) + us) * 1000)
