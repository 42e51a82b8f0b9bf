"""Events as Stripe sends them, written after its public documentation, and their signatures."""

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "events"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
SECRET = "whsec_canary"


def event(name: str, payment: Any = None, **changes: Any) -> bytes:
    """An event about a payment. `changes` replace fields of its object; `event`,
    `type` and `created` those of its own."""
    ids = {
        "PAYMENT": "pay_unknown", "ACCOUNT": "usr_unknown", "OFFER": "credit-20",
        "SESSION": "cs_test_unknown", "INTENT": "pi_unknown", "CHARGE": "ch_unknown",
    }  # fmt: skip
    if payment is not None:
        number = payment.id.removeprefix("pay_")
        ids = {
            "PAYMENT": payment.id, "ACCOUNT": payment.user_id, "OFFER": payment.offer,
            "SESSION": f"cs_test_{number}", "INTENT": f"pi_{number}", "CHARGE": f"ch_{number}",
        }  # fmt: skip
    text = (FOLDER / f"{name}.json").read_text()
    for word, id in ids.items():
        text = text.replace(word, id)
    tree = json.loads(text)
    tree["id"] = changes.pop("event", f"evt_{name}_{ids['PAYMENT']}")
    tree["type"] = changes.pop("type", tree["type"])
    tree["created"] = changes.pop("created", tree["created"])
    tree["data"]["object"].update(changes)
    return json.dumps(tree, indent=2).encode()


def signed(body: bytes, secret: str = SECRET, moment: float | None = None) -> str:
    """The Stripe-Signature field of an event."""
    at = int(time.time() if moment is None else moment)
    digest = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
