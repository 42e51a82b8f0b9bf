"""An alert in the words and the form of each service.

Decides the text, the JSON and the signature of a message, and which answers mean that it was taken.
Formats: "Incoming webhooks" (Slack), "Execute Webhook" (Discord), `sendMessage` (Telegram Bot API),
"Custom bot" (Feishu), "Group robot" (WeCom). Must not know sockets.
"""

import base64
import hmac
import json
import time
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, Final

from relay import clock
from relay.alerts.rules import Alert
from relay.config import AlertSettings

_TITLES: Final = {
    ("upstream", "firing"): "Upstream {} is down",
    ("upstream", "resolved"): "Upstream {} works again",
    ("cooling", "firing"): "Upstream {} has been cooling down for long",
    ("cooling", "resolved"): "Upstream {} has cooled down",
    ("plan", "firing"): "Little is left of the plan of upstream {}",
    ("plan", "resolved"): "The plan of upstream {} has enough left again",
    ("certificate", "firing"): "Certificate {} is near its end",
    ("certificate", "resolved"): "Certificate {} is renewed",
    ("disk", "firing"): "Little space is left on the disk of {}",
    ("disk", "resolved"): "The disk of {} has space again",
    ("journal", "firing"): "The journal cannot be written: new requests are refused",
    ("journal", "resolved"): "The journal is written again",
    ("backup", "firing"): "The backup failed",
    ("backup", "resolved"): "A backup was made again",
    ("user", "occurred"): "{} has an account",
    ("payment", "occurred"): "{}: credit, or a payment",
    ("window", "occurred"): "{} has used up a limit",
}  # fmt: skip
_MAX_DISCORD_CHARACTERS: Final = 2000


@dataclass(frozen=True, slots=True)
class Post:
    """A POST to a webhook."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def title(alert: Alert) -> str:
    """One line, without a full stop."""
    if alert.state == "test":
        return "This is a test: alerts of this relay arrive here"
    return _TITLES[alert.event, alert.state].format(alert.subject)


def text(alert: Alert, public_url: str) -> str:
    """A few lines of plain text."""
    mark = {"firing": "⚠", "resolved": "✓", "test": "•", "occurred": "•"}[alert.state]
    lines = [f"{mark} {title(alert)}"]
    if alert.text and alert.state in ("firing", "occurred"):
        lines.append(alert.text)
    if alert.state == "resolved":
        lines.append(f"It lasted {_duration(alert.at - alert.since)}.")
    elif alert.state == "firing":
        lines.append(f"Since {clock.rfc3339(alert.since).split('.')[0]}Z.")
    lines.append(public_url)
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def post(settings: AlertSettings, alert: Alert, public_url: str, secret: str, now: float) -> Post:
    """The message for any service but mail; `now` is the moment of this attempt."""
    plain = text(alert, public_url)
    kind = settings.kind
    if kind == "webhook":
        return _signed(_document(alert, public_url), secret, now)
    document: dict[str, Any]
    if kind == "slack":
        escaped = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        document = {"text": escaped}
    elif kind == "discord":
        document = {"content": plain[:_MAX_DISCORD_CHARACTERS], "allowed_mentions": {"parse": []}}
    elif kind == "telegram":
        document = {
            "chat_id": settings.chat,
            "text": plain,
            "link_preview_options": {"is_disabled": True},
        }
    elif kind == "feishu":
        document = {"msg_type": "text", "content": {"text": plain}}
        if secret:
            stamp = str(int(now))
            digest = hmac.digest(f"{stamp}\n{secret}".encode(), b"", "sha256")
            document |= {"timestamp": stamp, "sign": base64.b64encode(digest).decode()}
    else:
        document = {"msgtype": "text", "text": {"content": plain}}
    return Post(json.dumps(document, ensure_ascii=False).encode())


def _document(alert: Alert, public_url: str) -> bytes:
    document: dict[str, object] = {
        "event": alert.event,
        "subject": alert.subject,
        "state": alert.state,
        "title": title(alert),
        "text": alert.text,
        "since": clock.rfc3339(alert.since),
        "at": clock.rfc3339(alert.at),
        "relay": public_url,
    }
    if alert.id:
        document["id"] = alert.id
    return json.dumps(document, ensure_ascii=False).encode()


def _signed(body: bytes, secret: str, now: float) -> Post:
    """The receiver computes HMAC-SHA256 of `TIMESTAMP.BODY` with the secret, and refuses old
    timestamps."""
    stamp = str(int(now))
    headers = {"x-relay-timestamp": stamp}
    if secret:
        digest = hmac.digest(secret.encode(), f"{stamp}.".encode() + body, "sha256")
        headers["x-relay-signature"] = f"sha256={digest.hex()}"
    return Post(body, headers)


def refusal(kind: str, body: bytes) -> str:
    """Why a service that answered with status 200 did not take the message; empty if it did."""
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(document, dict):
        return ""
    code: object = 0
    if kind == "feishu":
        code = document.get("code", document.get("StatusCode", 0))
    elif kind == "wecom":
        code = document.get("errcode", 0)
    elif kind == "telegram":
        code = 0 if document.get("ok", True) else document.get("error_code", 1)
    if not code:
        return ""
    words = document.get("msg") or document.get("errmsg") or document.get("description") or ""
    return " ".join(f"error {code} {words}".split())[:200]


def mail(settings: AlertSettings, alert: Alert, public_url: str) -> EmailMessage:
    """The message as mail."""
    message = EmailMessage()
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.to)
    message["Subject"] = " ".join(f"[relay] {title(alert)}".split())
    message["Date"] = formatdate(time.time(), usegmt=True)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834 §5
    message.set_content(text(alert, public_url) + "\n")
    return message
