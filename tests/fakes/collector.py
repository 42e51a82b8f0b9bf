"""A collector of OpenTelemetry traces: takes OTLP over HTTP in JSON, on a thread."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any


class Collector:
    """What it got. `statuses` are those of the next answers, 200 once there are none left."""

    def __init__(self) -> None:
        self.url = ""
        self.documents: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []  # of each POST, names in lower case
        self.statuses: list[int] = []
        self.retry_after = ""
        self.answer: dict[str, Any] = {}
        self.released = threading.Event()  # until then nothing is answered
        self.released.set()

    @property
    def spans(self) -> list[dict[str, Any]]:
        """All spans of the documents that were taken, in order."""
        return [
            span
            for document in self.documents
            for resource in document["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    """Attributes as plain values; whole numbers come as text in JSON."""
    found = {}
    for one in span["attributes"]:
        ((kind, value),) = one["value"].items()
        found[one["key"]] = int(value) if kind == "intValue" else value
    return found


class _Handler(http.server.BaseHTTPRequestHandler):
    collector: Collector

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        collector = self.collector
        body = self.rfile.read(int(self.headers["content-length"]))
        collector.released.wait(20)
        collector.headers.append({name.lower(): value for name, value in self.headers.items()})
        status = collector.statuses.pop(0) if collector.statuses else 200
        if status == 200 and self.path == "/v1/traces":
            collector.documents.append(json.loads(body))
        self.send_response(status)
        octets = json.dumps(collector.answer).encode()
        self.send_header("content-length", str(len(octets)))
        if collector.retry_after:
            self.send_header("retry-after", collector.retry_after)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(octets)


@contextlib.contextmanager
def running_collector() -> Iterator[Collector]:
    collector = Collector()
    handler = type("Handler", (_Handler,), {"collector": collector})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
