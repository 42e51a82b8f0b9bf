"""When an authority suggests to renew a certificate: its renewal information (RFC 9773).

Decides how it is asked, and which answers are believed. Must not know what is served. Blocks. The
library of orders is not used: it takes memory, and most processes place no order.
"""

import base64
import datetime
import json
import time
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from relay import __version__
from relay.net.acme.schedule import retry_after_seconds
from relay.net.tls import upstream

ASK_SECONDS: Final = 6 * 3600.0  # RFC 9773 §4.3.3
_DIRECTORY_SECONDS: Final = ASK_SECONDS / 2
_MIN_ASK_SECONDS: Final = 60.0
_MAX_ASK_SECONDS: Final = 86_400.0
_ANSWER_TIMEOUT_SECONDS: Final = 20
_MAX_ANSWER_OCTETS: Final = 64 * 1024
_MAX_EXPLANATION: Final = 200  # characters


@dataclass(frozen=True, slots=True)
class Suggestion:
    """When to renew, Unix time, and after how many seconds to ask again."""

    start: float
    end: float
    ask_after: float
    explanation: str  # the URL of a page; "": none


class RenewalInfo:
    """The renewal information of one authority. `ca` is as in `[acme]`. Its directory is fetched
    once for the questions of some hours, whatever number of domains they are about."""

    def __init__(self, directory: str, ca: str | None) -> None:
        self._directory = directory
        self._ca = ca
        self._base: str | None = None
        self._fetch_after = 0.0  # by time.monotonic

    def suggestion(self, chain: bytes) -> Suggestion | None:
        """What the authority suggests for a certificate, PEM; None: it makes no suggestions.

        Raises:
            Exception: it cannot be asked, or its answer cannot be read.
        """
        base = self._resource()
        if base is None:
            return None
        url = f"{base}/{certificate_id(x509.load_pem_x509_certificate(chain))}"
        try:
            document, retry_after = _get(url, self._ca)
        except Exception:
            self._fetch_after = 0.0  # it may have moved
            raise
        window = document["suggestedWindow"]
        start, end = _time(window["start"]), _time(window["end"])
        if end <= start:
            raise ValueError("its window ends before it begins")
        wait = retry_after_seconds(retry_after, time.time())
        wait = min(max(ASK_SECONDS if wait is None else wait, _MIN_ASK_SECONDS), _MAX_ASK_SECONDS)
        explanation = str(document.get("explanationURL") or "")[:_MAX_EXPLANATION]
        return Suggestion(start, end, wait, explanation if explanation.isprintable() else "")

    def _resource(self) -> str | None:
        """The URL below which certificates are asked about; None: there is none."""
        now = time.monotonic()
        if now >= self._fetch_after:
            self._base = _get(self._directory, self._ca)[0].get("renewalInfo")
            self._fetch_after = now + _DIRECTORY_SECONDS
        return self._base


def certificate_id(certificate: x509.Certificate) -> str:
    """The name that a certificate has for its authority (RFC 9773 §4.1).

    Raises:
        ValueError: the certificate names no key of its issuer's.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        raise ValueError("the certificate names no key of its issuer's") from None
    issuer = extension.value.key_identifier or b""
    number = certificate.serial_number
    serial = number.to_bytes(number.bit_length() // 8 + 1, signed=True)  # as DER has it
    parts = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (issuer, serial))
    return ".".join(parts)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect the error that it is for a program."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _get(url: str, ca: str | None) -> tuple[dict[str, Any], str]:
    """A JSON document, and its `retry-after`."""
    if not url.startswith("https://"):
        raise ValueError("a URL does not begin with https://")
    request = urllib.request.Request(url, headers={"user-agent": f"relay/{__version__}"})  # noqa: S310
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),  # none of the environment
        urllib.request.HTTPSHandler(context=upstream(ca)),
        _NoRedirects,
    )
    with opener.open(request, timeout=_ANSWER_TIMEOUT_SECONDS) as answer:
        document = json.loads(answer.read(_MAX_ANSWER_OCTETS))
        if not isinstance(document, dict):
            raise TypeError("its answer is no object")
        return document, answer.headers.get("retry-after", "")


def _time(text: str) -> float:
    found = datetime.datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time has no zone")
    return found.timestamp()
