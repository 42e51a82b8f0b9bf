"""The rules for accounts and their API keys: `users`, `keys`.

They decide who may have what, by relay.toml, and refuse with one plain line. They keep no state:
that is in `relay.store`.
"""


class AccountError(Exception):
    """It cannot be done; the message is one line that says what to do instead."""


class InvalidError(AccountError):
    """The request is wrong in itself, whatever the database holds."""
