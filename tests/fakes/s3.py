"""An S3-compatible service on loopback that checks signatures, and fails on request.

It computes each signature by itself, from the description of Signature Version 4 in the Amazon S3
API reference.
"""

import hashlib
import hmac
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ACCESS_KEY = "AKIATEST"
SECRET_KEY = "very/secret+canary"
REGION = "eu-central-1"
_CREDENTIAL = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request,"
    r"SignedHeaders=([a-z0-9;-]+),Signature=([0-9a-f]{64})"
)


class Bucket(ThreadingHTTPServer):
    """What it has stored, by path, and how the next requests fail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.fault = ""  # of every request, until changed
        self.requests: list[str] = []
        self.release = threading.Event()  # ends the fault "silent"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def settings(self, **changes: Any) -> dict[str, Any]:
        """`[backup.s3]` for it."""
        return {
            "endpoint": self.url,
            "bucket": "b1",
            "prefix": "relay/",
            "region": REGION,
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
        } | changes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bucket

    def log_message(self, *_: Any) -> None:
        pass

    def do_PUT(self) -> None:
        self.server.requests.append(f"PUT {self.path}")
        if self._fails():
            return
        body = self.rfile.read(int(self.headers["content-length"]))
        if hashlib.sha256(body).hexdigest() != self.headers["x-amz-content-sha256"]:
            self._refuse(400, "XAmzContentSHA256Mismatch")
        elif self._is_signed():
            self.server.objects[self.path] = body
            self._answer(200)

    def do_HEAD(self) -> None:
        self.server.requests.append(f"HEAD {self.path}")
        if self._fails() or not self._is_signed():
            return
        body = self.server.objects.get(self.path)
        short = 1 if self.server.fault == "loses an octet" else 0
        if body is None:
            self._answer(404)
        else:
            self._answer(200, length=len(body) - short)

    def _fails(self) -> bool:
        fault = self.server.fault
        if fault == "slow down":
            self._refuse(503, "SlowDown", "Please reduce your request rate.")
        elif fault == "early refusal":  # before the body was read
            self._refuse(404, "NoSuchBucket")
        elif fault == "cut":
            self.rfile.read(10)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault == "no HTTP":
            self.wfile.write(b"220 mail.example ESMTP\r\n\r\n")
            self.close_connection = True
        elif fault == "silent":
            self.server.release.wait(10)
            self.close_connection = True
        else:
            return False
        return True

    def _is_signed(self) -> bool:
        match = _CREDENTIAL.fullmatch(self.headers.get("authorization", ""))
        if match is None:
            self._refuse(400, "AuthorizationHeaderMalformed")
            return False
        access_key, day, region, names, signature = match.groups()
        if access_key != ACCESS_KEY:
            self._refuse(403, "InvalidAccessKeyId", "The key does not exist.")
            return False
        fields = "".join(f"{name}:{self.headers[name]}\n" for name in names.split(";"))
        digest = self.headers["x-amz-content-sha256"]
        canonical = f"{self.command}\n{self.path}\n\n{fields}\n{names}\n{digest}"
        moment = self.headers["x-amz-date"]
        text = (
            f"AWS4-HMAC-SHA256\n{moment}\n{day}/{region}/s3/aws4_request\n"
            + hashlib.sha256(canonical.encode()).hexdigest()
        )
        key = b"AWS4" + SECRET_KEY.encode()
        for part in (day, REGION, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), "sha256").digest()
        required = {"host", "x-amz-content-sha256", "x-amz-date"} <= set(names.split(";"))
        if required and hmac.new(key, text.encode(), "sha256").hexdigest() == signature:
            return True
        self._refuse(403, "SignatureDoesNotMatch")
        return False

    def _refuse(self, status: int, code: str, message: str = "No.") -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>")
        self.close_connection = True

    def _answer(self, status: int, text: str = "", length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())


@contextmanager
def running_bucket() -> Iterator[Bucket]:
    bucket = Bucket()
    thread = threading.Thread(target=bucket.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield bucket
    finally:
        bucket.release.set()
        bucket.shutdown()
        thread.join()
        bucket.server_close()
