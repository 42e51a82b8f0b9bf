"""Receivers on loopback: a webhook, and a mail server. They record, and fail on request."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, bytes]] = []  # the next ones; then 200 with `usual`
        self.usual = b"ok"
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/canary?key=canary"


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append((self.path, headers, body))
        status, answer = (
            self.server.answers.pop(0) if self.server.answers else (200, self.server.usual)
        )
        if status == 0:  # silent
            self.server.release.wait(10)
            return
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


class Mailbox(socketserver.ThreadingTCPServer):
    """A mail server that takes one message a session, without TLS."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.refusal = ""  # the answer to MAIL FROM
        self.full = ""  # an address that takes no mail for now
        self.messages: list[bytes] = []
        self.commands: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Session(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self._say("220 mail.example")
        while line := self.rfile.readline().decode().strip():
            self.server.commands.append(line)
            command = line.split(":")[0].split()[0].upper()
            if command == "EHLO":
                self._say("250-mail.example\r\n250 AUTH PLAIN")
            elif command == "AUTH":
                self._say("235 welcome")
            elif command == "MAIL" and self.server.refusal:
                self._say(self.server.refusal)
            elif command == "RCPT" and self.server.full and self.server.full in line:
                self._say("452 mailbox full")
            elif command == "DATA":
                self._say("354 go on")
                lines = []
                while (text := self.rfile.readline()) != b".\r\n":
                    lines.append(text)
                self.server.messages.append(b"".join(lines))
                self._say("250 taken")
            elif command == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok")

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


@contextmanager
def _running(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        if isinstance(server, Webhook):
            server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def running_webhook() -> Iterator[Webhook]:
    with _running(Webhook()) as server:
        yield server


@contextmanager
def running_mailbox() -> Iterator[Mailbox]:
    with _running(Mailbox()) as server:
        yield server
