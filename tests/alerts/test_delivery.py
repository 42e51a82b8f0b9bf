"""One attempt to send an alert: the form of each service, signatures, and every way to fail."""

import base64
import email
import email.policy
import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from relay.alerts import delivery, messages
from relay.alerts.delivery import DeliveryError, send
from relay.alerts.rules import Alert, State
from relay.config import AlertSettings
from tests.alerts.services import Mailbox, Webhook

FIRING = Alert(
    "upstream", "glm <main>", "firing", "3 failed in a row", 1_775_649_600.0, 1_775_649_700.0
)
RESOLVED = Alert("upstream", "glm <main>", "resolved", "x", 1_775_649_600.0, 1_775_650_200.0)
TEST = Alert("upstream", "test", "test", "", 0.0, 0.0)
PUBLIC = "https://relay.example"
PLAIN = (
    "⚠ Upstream glm <main> is down\n3 failed in a row\nSince 2026-04-08T12:00:00Z.\n"
    "https://relay.example"
)


def received(webhook: Webhook, **settings: Any) -> tuple[dict[str, str], Any]:
    """The fields and the document of the message that a receiver gets."""
    send(AlertSettings(name="a", url=webhook.url, **settings), FIRING, PUBLIC)
    [(path, headers, body)] = webhook.received
    assert path == "/hook/canary?key=canary"
    assert headers["content-type"] == "application/json; charset=utf-8"
    return headers, json.loads(body)


def test_a_webhook_gets_a_signed_document(webhook: Webhook) -> None:
    headers, document = received(webhook, kind="webhook", secret="s3cret")
    assert document == {
        "event": "upstream",
        "subject": "glm <main>",
        "state": "firing",
        "title": "Upstream glm <main> is down",
        "text": "3 failed in a row",
        "since": "2026-04-08T12:00:00.000Z",
        "at": "2026-04-08T12:01:40.000Z",
        "relay": PUBLIC,
    }
    stamp = headers["x-relay-timestamp"]
    assert abs(int(stamp) - time.time()) < 60
    body = webhook.received[0][2]
    digest = hmac.new(b"s3cret", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["x-relay-signature"] == f"sha256={digest}"


def test_a_webhook_without_secret_is_not_signed(webhook: Webhook) -> None:
    headers, _ = received(webhook, kind="webhook")
    assert "x-relay-signature" not in headers


@pytest.mark.parametrize(
    ("kind", "more", "document"),
    [
        ("slack", {}, {"text": PLAIN.replace("<main>", "&lt;main&gt;")}),
        ("discord", {}, {"content": PLAIN, "allowed_mentions": {"parse": []}}),
        (
            "telegram", {"chat": "-100"},
            {"chat_id": "-100", "text": PLAIN, "link_preview_options": {"is_disabled": True}},
        ),
        ("feishu", {}, {"msg_type": "text", "content": {"text": PLAIN}}),
        ("wecom", {}, {"msgtype": "text", "text": {"content": PLAIN}}),
    ],
)  # fmt: skip
def test_each_service_gets_its_own_form(
    webhook: Webhook, kind: str, more: dict[str, Any], document: dict[str, Any]
) -> None:
    assert received(webhook, kind=kind, **more)[1] == document


def test_feishu_is_signed_as_its_documentation_says() -> None:
    settings = AlertSettings(name="f", kind="feishu", url="https://f.example", secret="demo")
    post = messages.post(settings, FIRING, PUBLIC, "demo", 1_599_360_473.9)
    document = json.loads(post.body)
    assert document["timestamp"] == "1599360473"
    key = b"1599360473\ndemo"
    assert document["sign"] == base64.b64encode(hmac.new(key, b"", "sha256").digest()).decode()


def test_mail_is_plain_and_marked_as_automatic(mailbox: Mailbox) -> None:
    settings = AlertSettings(
        name="m", kind="mail", to=["a@example.com", "b@example.com"], sender="relay@example.com",
        smtp=mailbox.address, user="relay", password="pass",
    )  # fmt: skip
    send(settings, RESOLVED, PUBLIC)
    [octets] = mailbox.messages
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert message["subject"] == "[relay] Upstream glm <main> works again"
    assert message["to"] == "a@example.com, b@example.com"
    assert message["auto-submitted"] == "auto-generated"
    assert message.get_content().replace("\r\n", "\n") == (
        "✓ Upstream glm <main> works again\nIt lasted 10 min.\nhttps://relay.example\n"
    )
    credentials = base64.b64encode(b"\0relay\0pass").decode()
    assert f"AUTH PLAIN {credentials}" in mailbox.commands


@pytest.mark.parametrize(
    ("status", "answer", "kind", "reason", "final"),
    [
        (404, b"no_service", "slack", "refused with status 404", True),
        (302, b"", "webhook", "refused with status 302", True),
        (429, b"", "slack", "refused with status 429", False),
        (500, b"", "slack", "refused with status 500", False),
        (200, b'{"code":19021,"msg":"sign match fail"}', "feishu", "error 19021 sign match", False),
        (200, b'{"errcode":93000,"errmsg":"invalid url"}', "wecom", "error 93000 invalid", False),
        (200, b'{"ok":false,"error_code":400,"description":"chat not found"}', "telegram",
         "error 400 chat not found", False),
        (0, b"", "webhook", "no answer within", False),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_without_the_address(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, status: int, answer: bytes, kind: Any,
    reason: str, final: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(delivery, "_TIMEOUT_SECONDS", 0.3)
    webhook.answers = [(status, answer)]
    settings = AlertSettings(name="a", kind=kind, url=webhook.url, chat="1")
    with pytest.raises(DeliveryError) as caught:
        send(settings, FIRING, PUBLIC)
    assert reason in str(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.final == final


@pytest.mark.parametrize("answer", [b"ok", b'{"code":0}', b"[]", b"", b'{"StatusCode":0}'])
def test_other_answers_are_acceptance(webhook: Webhook, answer: bytes) -> None:
    webhook.answers = [(200, answer)]
    send(AlertSettings(name="a", kind="feishu", url=webhook.url), FIRING, PUBLIC)


@pytest.mark.parametrize(
    ("refusal", "final"), [("550 no such sender", True), ("451 try again later", False)]
)
def test_a_mail_server_refuses(mailbox: Mailbox, refusal: str, final: bool) -> None:
    mailbox.refusal = refusal
    settings = AlertSettings(
        name="m", kind="mail", to=["a@b.c"], sender="r@b.c", smtp=mailbox.address
    )
    with pytest.raises(DeliveryError, match=f"server refused with {refusal[:3]}") as caught:
        send(settings, FIRING, PUBLIC)
    assert caught.value.final == final


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/canary", "Connection refused"),
        ("env:NO_SUCH_WEBHOOK", "NO_SUCH_WEBHOOK is not set"),
        ("https://127.0.0.1:{port}/canary", "TLS failed"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(
    webhook: Webhook, url: str, reason: str
) -> None:
    settings = AlertSettings(name="a", kind="slack", url=url.format(port=webhook.server_port))
    with pytest.raises(DeliveryError, match=reason) as caught:
        send(settings, TEST, PUBLIC)
    assert "canary" not in str(caught.value)


def test_every_event_has_words_for_its_beginning_and_end() -> None:
    from typing import get_args

    from relay.config.alerts import OCCURRENCES, Event

    for event in get_args(Event):
        states: tuple[State, ...] = ("firing", "resolved")
        for state in ("occurred",) if event in OCCURRENCES else states:
            alert = Alert(event, "thing", state, "", 0.0, 9000.0)
            assert messages.text(alert, PUBLIC).endswith(PUBLIC)
