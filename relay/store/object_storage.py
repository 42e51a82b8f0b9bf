"""Copies a file to a bucket of Amazon S3, or of a service that speaks its API.

Decides the request, its signature (AWS Signature Version 4, "Authenticating Requests: Using the
Authorization Header" in the Amazon S3 API reference) and when a copy counts as complete. Must not
know the file's contents. Blocks, so call it on a thread of its own.
"""

import hashlib
import hmac
import http.client
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote, urlsplit

from relay.config import StorageSettings
from relay.secret import Secret

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
_TIMEOUT_SECONDS: Final = 60.0  # for each step of a connection
_MAX_OCTETS: Final = 5 * 1024**3  # of one PUT (Amazon S3 user guide, "Uploading objects")
_MAX_ERROR_OCTETS: Final = 64 * 1024
_SENT_OCTETS: Final = 64 * 1024  # at once
_BLOCK_OCTETS: Final = 1024 * 1024
_ERROR_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9]{1,80})</Code>")
_ERROR_TEXT: Final = re.compile(rb"<Message>([^<]{1,200})")
_ADVICE: Final = {
    "SignatureDoesNotMatch": "check backup.s3.secret_key and region",
    "InvalidAccessKeyId": "check backup.s3.access_key",
    "NoSuchBucket": "check backup.s3.bucket",
    "AccessDenied": "the key may not write to this bucket",
    "RequestTimeTooSkewed": "set this machine's clock",
    "AuthorizationHeaderMalformed": "check backup.s3.region",
}


class StorageError(Exception):
    """A file was not copied; the message is one line for the operator, without any secret."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs requests to one service in one region."""

    access_key: Secret
    secret_key: Secret
    region: str

    def authorization(
        self, method: str, path: str, headers: Mapping[str, str], payload_sha256: str
    ) -> str:
        """The value of `authorization`. `headers`, in lower case, are all signed; among them must
        be `host` and `x-amz-date`. `path` is percent-encoded."""
        moment = headers["x-amz-date"]
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        names = ";".join(sorted(headers))
        canonical = "\n".join(
            [
                method,
                path,
                "",  # no query
                *(f"{name}:{headers[name].strip()}" for name in sorted(headers)),
                "",
                names,
                payload_sha256,
            ]
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = ("AWS4" + self.secret_key.reveal()).encode()
        for part in (moment[:8], self.region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = "\n".join([_ALGORITHM, moment, scope, digest])
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        credential = f"{self.access_key.reveal()}/{scope}"
        return f"{_ALGORITHM} Credential={credential},SignedHeaders={names},Signature={signature}"


def upload(file: Path, settings: StorageSettings) -> str:
    """Copy `file` to the bucket under its own name, then check the size of the copy.

    Returns the name in the bucket. An object of the same name is replaced.

    Raises:
        StorageError: the copy is not there, or not complete.
    """
    try:
        access_key, secret_key = settings.credentials()
    except ValueError as error:
        raise StorageError(f"backup.s3.{error}") from None
    signer = Signer(access_key, secret_key, settings.region)
    name = settings.prefix + file.name
    try:
        size, digest = _measure(file)
        if size > _MAX_OCTETS:
            raise StorageError(
                f"{file}: {size:,} octets are more than one upload may have ({_MAX_OCTETS:,})"
            )
        with file.open("rb") as content:
            request = _Request(settings, signer, name)
            request.send("PUT", digest, size, content)
            stored = request.send("HEAD", _EMPTY_SHA256, 0, None)
    except TimeoutError:
        raise StorageError(f"{settings.endpoint} does not answer") from None
    except ssl.SSLError as error:
        raise StorageError(f"{settings.endpoint}: TLS failed: {error.reason}") from None
    except OSError as error:
        raise StorageError(f"{settings.endpoint}: {error.strerror or error}") from None
    except http.client.HTTPException as error:
        raise StorageError(f"{settings.endpoint}: {type(error).__name__}: no HTTP answer") from None
    if stored != size:
        raise StorageError(f"{name} has {stored} of {size} octets in the bucket")
    return name


def _measure(file: Path) -> tuple[int, str]:
    """Size in octets, and SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    size = 0
    with file.open("rb") as content:
        while block := content.read(_BLOCK_OCTETS):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


class _Request:
    """Requests for one object, each on a connection of its own."""

    def __init__(self, settings: StorageSettings, signer: Signer, name: str) -> None:
        self._endpoint = urlsplit(settings.endpoint)
        self._signer = signer
        prefix = self._endpoint.path.rstrip("/")
        self._path = quote(f"{prefix}/{settings.bucket}/{name}", safe="/-_.~")

    def send(
        self, method: str, payload_sha256: str, size: int, content: BinaryIO | None
    ) -> int | None:
        """Send one request; returns the content-length of the answer.

        Raises:
            StorageError: the answer is an error.
            OSError, http.client.HTTPException: the connection failed.
        """
        moment = datetime.fromtimestamp(time.time(), UTC)
        headers = {
            "host": self._endpoint.netloc,
            "x-amz-content-sha256": payload_sha256,
            "x-amz-date": f"{moment:%Y%m%dT%H%M%SZ}",
        }
        authorization = self._signer.authorization(method, self._path, headers, payload_sha256)
        headers |= {"authorization": authorization}
        if method == "PUT":
            headers |= {"content-length": str(size), "content-type": "application/octet-stream"}
        connection = self._connection()
        try:
            connection.putrequest(method, self._path, skip_host=True, skip_accept_encoding=True)
            for field, value in headers.items():
                connection.putheader(field, value)
            try:
                connection.endheaders(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before all of it was sent: the answer says why, if there is one
            answer = connection.getresponse()
            body = answer.read(_MAX_ERROR_OCTETS)
            if answer.status != 200:
                raise _refusal(answer.status, body)
            length = answer.getheader("content-length", "")
            return int(length) if length.isdigit() else None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._endpoint.hostname or "", self._endpoint.port
        if self._endpoint.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                host, port, timeout=_TIMEOUT_SECONDS, context=context, blocksize=_SENT_OCTETS
            )
        return http.client.HTTPConnection(
            host, port, timeout=_TIMEOUT_SECONDS, blocksize=_SENT_OCTETS
        )


def _refusal(status: int, body: bytes) -> StorageError:
    """An error of the service (Amazon S3 API reference, "Error responses")."""
    match = _ERROR_CODE.search(body)
    code = match[1].decode() if match else ""
    text = _ERROR_TEXT.search(body)
    message = text[1].decode("utf-8", "replace") if text else ""
    why = _ADVICE.get(code) or " ".join(message.split()) or "the service gave no reason"
    return StorageError(f"the bucket refused it: {status} {code}; {why}".replace(" ;", ";"))
