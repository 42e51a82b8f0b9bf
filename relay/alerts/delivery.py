"""One attempt to send an alert: a POST to a webhook, or mail by SMTP.

Decides time-outs and which failures are worth another attempt. An error never quotes the URL, which
is a secret. Blocks, so it runs on a thread of its own.
"""

import http.client
import ssl
import time
from typing import Final
from urllib.parse import urlsplit

from relay import __version__
from relay.alerts import messages
from relay.alerts.mail_server import DeliveryError as DeliveryError
from relay.alerts.mail_server import send_message
from relay.alerts.rules import Alert
from relay.config import AlertSettings

_TIMEOUT_SECONDS: Final = 10.0
_MAX_ANSWER_OCTETS: Final = 16 * 1024
_WORTH_A_RETRY: Final = (408, 425, 429)  # and every 5xx


def send(settings: AlertSettings, alert: Alert, public_url: str) -> None:
    """Send an alert to one receiver.

    Raises:
        DeliveryError: it was not taken.
    """
    try:
        if settings.kind == "mail":
            send_message(settings, messages.mail(settings, alert, public_url))
        else:
            _post(settings, alert, public_url)
    except TimeoutError:
        raise DeliveryError(f"no answer within {_TIMEOUT_SECONDS:.0f} s") from None
    except ssl.SSLError as error:
        raise DeliveryError(f"TLS failed: {error.reason or 'certificate not accepted'}") from None
    except OSError as error:
        raise DeliveryError(error.strerror or str(error) or "connection failed") from None
    except http.client.HTTPException as error:
        raise DeliveryError(f"no HTTP answer ({type(error).__name__})") from None


def _post(settings: AlertSettings, alert: Alert, public_url: str) -> None:
    try:
        url = urlsplit(settings.resolved("url"))
        secret = settings.resolved("secret")
    except ValueError as error:
        raise DeliveryError(str(error), final=True) from None
    post = messages.post(settings, alert, public_url, secret, time.time())
    host = url.hostname or ""
    if url.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, url.port, timeout=_TIMEOUT_SECONDS, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, url.port, timeout=_TIMEOUT_SECONDS)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = {
        "content-type": "application/json; charset=utf-8",
        "user-agent": f"relay/{__version__}",
        **post.headers,
    }
    try:
        connection.request("POST", target, post.body, headers)
        answer = connection.getresponse()
        body = answer.read(_MAX_ANSWER_OCTETS)
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        final = answer.status < 500 and answer.status not in _WORTH_A_RETRY
        raise DeliveryError(f"refused with status {answer.status}", final=final)
    refusal = messages.refusal(settings.kind, body)
    if refusal:
        raise DeliveryError(f"refused: {refusal}")
