"""The rules for people and their keys: `people`, `keys`.

They decide who may be given what, by relay.toml, and say in plain words why not.
They keep nothing themselves: that is `relay.store`.
"""


class AccountError(Exception):
    """It cannot be done; the message is one line that says what to do instead."""


class InvalidError(AccountError):
    """What was asked for can never be done as it is written: a mistake in the asking."""
