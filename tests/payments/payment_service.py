"""A payment service on a real socket: it makes Checkout Sessions, and has a page to pay."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

KEY = "sk_test_canary"


@dataclass
class Service:
    """What it was asked. A test can spoil its answers."""

    url: str = ""
    status: int = 200
    answer: bytes | None = None  # in place of the right one
    leads_to: str = ""  # in place of its own page
    hangs_up: bool = False
    forms: list[dict[str, str]] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)

    def session(self, form: dict[str, str], head: dict[str, str]) -> tuple[int, bytes]:
        """The answer to the request for a session."""
        self.forms.append(form)
        self.heads.append(head)
        if self.answer is not None or self.status != 200:
            return self.status, self.answer or b"{}"
        if head.get("authorization") != f"Bearer {KEY}":
            return 401, b'{"error": {"message": "Invalid API Key provided: sk_test_canary"}}'
        number = form["client_reference_id"].removeprefix("pay_")
        url = self.leads_to or f"{self.url}/c/pay/cs_test_{number}"
        return 200, json.dumps({"id": f"cs_test_{number}", "url": url}).encode()

    def page(self) -> bytes:
        """The page where people pay: it links back, as Stripe's does."""
        form = self.forms[-1]
        links = "".join(
            f'<p><a id="{name}" href="{form[f"{name}_url"]}">{name}</a></p>'
            for name in ("success", "cancel")
        )
        icon = '<link rel="icon" href="data:,">'
        return f"<!doctype html><title>Pay</title>{icon}<h1>Pay</h1>{links}".encode()


@contextmanager
def running_service() -> Iterator[Service]:
    """A service that answers until the end."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            form = dict(parse_qsl(self.rfile.read(length).decode()))
            if service.hangs_up:
                self.close_connection = True
                return
            head = {name.lower(): value for name, value in self.headers.items()}
            status, octets = service.session(form, head)
            self._respond(status, "application/json", octets)

        def do_GET(self) -> None:
            self._respond(200, "text/html", service.page())

        def _respond(self, status: int, kind: str, octets: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(octets)))
            self.end_headers()
            self.wfile.write(octets)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
