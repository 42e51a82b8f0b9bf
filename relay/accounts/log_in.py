"""Log-ins by e-mail address and password.

Decides how often one may try, and that an unknown address looks like a wrong password, in words and
in time. Must not know pages or SQL.
"""

from relay.accounts import AccountError
from relay.accounts.passwords import Passwords
from relay.accounts.throttle import Throttle, address_name
from relay.config import WebSettings
from relay.store.database import Database
from relay.store.sessions import find_password
from relay.store.users import User


class TooOftenError(AccountError):
    """There were too many tries; the next one may come after `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many tries; wait {seconds} s")
        self.seconds = seconds


class WrongCredentialsError(AccountError):
    """The address or the password is wrong; nobody learns which."""


class LogIn:
    """Checks e-mail addresses and passwords."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords
        self._by_account = Throttle(5)
        self._by_address = Throttle(20)

    async def check(
        self, settings: WebSettings, email: str, password: str, address: str, now: float
    ) -> User:
        """The account whose password this is.

        Raises:
            TooOftenError: from this address, or for this account.
            WrongCredentialsError: there is no such pair.
            HashingBusyError: too many others log in at once.
        """
        self._by_account.allowed = settings.log_ins_per_account
        self._by_address.allowed = settings.log_ins_per_address
        account = email.strip().casefold()[:254]
        for throttle, name in (
            (self._by_address, address_name(address)),
            (self._by_account, account),
        ):
            seconds = throttle.wait(name, now)
            if seconds:
                raise TooOftenError(seconds)
        found = await find_password(self._database, account)
        user, password_hash = found if found is not None else (None, None)
        network = address_name(address)
        if not await self._passwords.verify(password_hash, password, network) or user is None:
            raise WrongCredentialsError("the address or the password is wrong")
        self._by_account.forgive(account)
        return user

    def forget(self, email: str) -> None:
        """The account has another password: earlier tries do not count."""
        self._by_account.forgive(email.casefold())
