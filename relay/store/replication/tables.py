"""Which tables all nodes share, and which each node has for itself.

Decides that for each table of `relay.store.migrations`, with the reason. Must not know columns.

Three ways of sharing:
- `rows`: any node may change a row. Of two changes at once to one column, the later one in the
  order of the engine holds; a deletion prevails over a change.
- `entries`: rows are only ever added, each by one node, and keep their ids everywhere.
- `requests`: `usage`. Each node numbers all requests in the order in which they come to it, so
  that its own sums go on as they are: each node derives them from its own `usage`.
"""

from typing import Final, Literal

Sharing = Literal["rows", "entries", "requests"]

# Parents before the tables that refer to them.
SHARED: Final[dict[str, tuple[Sharing, str]]] = {
    "value": ("rows", "the server's secret opens what any node has sealed"),
    "users": ("rows", "accounts"),
    "keys": ("rows", "keys with their rules"),
    "spend_limit": ("rows", "an account's limits hold on each node"),
    "statement": ("entries", "credits and charges; each node sums up `balance`"),
    "period": ("entries", "the history of plans"),
    "code": ("rows", "codes and how often each was used"),
    "redemption": ("rows", "the uses of codes by people"),
    "payment": ("rows", "payments and their invoices"),
    "payment_event": ("rows", "the events of Stripe that were taken in"),
    "session": ("rows", "a browser is logged in on each node"),
    "link": ("rows", "a one-time link may come to any node"),
    "totp": ("rows", "authenticator apps"),
    "recovery_code": ("rows", "codes that stand in for an app, once"),
    "passkey": ("rows", "passkeys and their counters"),
    "identity": ("rows", "accounts at other providers"),
    "threshold_choice": ("rows", "the mails that a person wants"),
    "threshold_mail": ("rows", "the mails that went, from whichever node"),
    "announcement": ("rows", "all people read the same"),
    "admin_key": ("rows", "keys of the provisioning API"),
    "idempotency": ("rows", "a call that is repeated may come to another node"),
    "pause": ("rows", "an operator who pauses an upstream pauses it on each node"),
    "response": ("rows", "a conversation goes on at any node"),
    "audit": ("entries", "one log of all changes"),
    "usage": ("requests", "each page shows the requests of all nodes"),
}

LOCAL: Final[dict[str, str]] = {
    "balance": "the sum of `statement`, kept by its triggers on each node",
    "usage_hour": "summed up from `usage` on each node",
    "usage_month": "follows `usage_hour`",
    "upstream_day": "summed up from `usage` on each node",
    "answer_day": "summed up from `usage` on each node",
    "latency_hour": "summed up from `usage` on each node",
    "summed": "how far this node has summed up its `usage`",
    "latency_summed": "how far this node has summed up its `usage`",
    "usage_of": "an index of this node's `usage`",
    "usage_indexed": "how far that index goes",
    "refusal": "counts of this node, kept for a week",
    "bucket": "the limits as this node's ledger has them; the engine has those that are shared",
    "adjustment": "the node where it was made changes the windows, once",
    "event": "the node where something happened sends the webhook, once",
    "journal": "requests of this node that have yet to come into the tables",
    "unfolded": "how far this node's journal is in the tables",
    "running": "requests that this node is serving",
    "revision": "counts the changes that this node's server has yet to see",
    "changed": "which accounts these are about",
    "replica": "this node's own name, number and position",
    "outbox": "this node's changes on their way to the others",
    "held_row": "rows of others that this node cannot take yet",
    "usage_foreign": "which of this node's `usage` other nodes have served",
    "usage_received": "how far this node has counted the requests of others",
}
