"""The rules for accounts and their API keys: `users`, `keys`, and for the ways to log in.

They decide who may have what, by relay.toml, and refuse with one plain line. Their state is in
`relay.store`, but for tries and what is under way for some minutes: `throttle`, `ceremonies`.
"""


class AccountError(Exception):
    """It cannot be done; the message is one line that says what to do instead.

    `fault` is a word for the cause, where there are several: pages find their own text by it.
    """

    def __init__(self, message: str = "", fault: str = "") -> None:
        super().__init__(message)
        self.fault = fault


class InvalidError(AccountError):
    """The request is wrong in itself, whatever the database holds."""
