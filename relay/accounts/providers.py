"""Log-ins by other providers: leaving for one, and coming back.

Decides what must have come back, and who may be let in: people whose e-mail address the provider
has verified, of the domains that the operator allows. Must not know pages or SQL.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from relay.accounts import AccountError, users
from relay.accounts.ceremonies import Ceremonies
from relay.accounts.log_in import TooOftenError
from relay.accounts.provider_client import Journey, Person, ProviderClient, ProviderError
from relay.accounts.sign_up import plan_of_new
from relay.accounts.throttle import Throttle, address_name
from relay.accounts.tokens import new_token
from relay.config import Settings
from relay.config.oidc import OidcSettings
from relay.net.off_loop import off_loop
from relay.secret import same
from relay.store.database import Database
from relay.store.identities import Identity, open_account
from relay.store.users import User

T = TypeVar("T")

_MAX_IN_THREADS: Final = 8
_TRIES_A_MINUTE: Final = 20  # from an address
_MAX_CODE: Final = 4_000


class StrangerError(AccountError):
    """Nobody whom this provider may let in; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason  # unverified, domain or no_account


@dataclass(frozen=True, slots=True)
class Leaving:
    """A browser that has gone to a provider. `user_id`: who links their account; else empty."""

    provider: str
    journey: Journey
    target: str = ""
    user_id: str = ""


def find_provider(settings: Settings, name: str) -> OidcSettings | None:
    """A provider of relay.toml."""
    return next((one for one in settings.web.oidc if one.name == name), None)


def check_person(provider: OidcSettings, person: Person) -> None:
    """Refuse those whom the operator does not want.

    Raises:
        StrangerError: the address is not verified, or of another domain.
    """
    if not person.is_verified or not users.is_email(person.email):
        raise StrangerError("unverified")
    domain = person.email.rpartition("@")[2].casefold()
    if provider.domains and domain not in provider.domains:
        raise StrangerError("domain")


class Providers:
    """All providers of relay.toml."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._leaving: Ceremonies[Leaving] = Ceremonies()
        self._by_address = Throttle(_TRIES_A_MINUTE)
        self._clients: dict[str, ProviderClient] = {}
        self._threads = threading.BoundedSemaphore(_MAX_IN_THREADS)

    async def leave(
        self, provider: OidcSettings, wanted: Leaving, address: str, now: float
    ) -> tuple[str, str]:
        """Where a browser goes, and the token that it brings back in a cookie. `wanted`: its
        journey needs no more than the address to come back to.

        Raises:
            TooOftenError: there were too many from this address, or too many are under way.
            ProviderError: the provider's addresses cannot be read.
        """
        seconds = self._by_address.wait(address_name(address), now)
        if seconds:
            raise TooOftenError(seconds)
        uri = wanted.journey.redirect_uri
        journey = Journey(new_token(), new_token(), new_token(), uri)
        client = self._client(provider)
        url = await self._beside(lambda: client.leave(journey))
        token = self._leaving.start(address_name(address), replace(wanted, journey=journey), now)
        return url, token

    async def come_back(
        self, provider: OidcSettings, token: str, query: dict[str, str], now: float
    ) -> tuple[Leaving, Person]:
        """The person who came back, and the purpose that they had left for.

        Raises:
            ProviderError: nobody left so, or what came back does not belong to it.
            TooOftenError: too many are under way.
        """
        left = self._leaving.take(token, now)
        state, code = query.get("state", ""), query.get("code", "")
        if left is None or left.provider != provider.name or not same(state, left.journey.state):
            raise ProviderError("nobody left for this provider with this state")
        if "error" in query:
            raise ProviderError(f"it says {query['error']!r:.100}")
        issuer = query.get("iss", "")  # RFC 9207
        if issuer and issuer.rstrip("/") != provider.issuer_url:
            raise ProviderError(f"the answer is of another issuer: {issuer!r:.200}")
        if not code or len(code) > _MAX_CODE:
            raise ProviderError("there is no code")
        client = self._client(provider)
        return left, await self._beside(lambda: client.identify(left.journey, code))

    async def open(
        self, settings: Settings, provider: OidcSettings, identity: Identity, now: float
    ) -> User:
        """Open an account for somebody who has none.

        Raises:
            StrangerError: this provider opens no accounts, or the address was taken meanwhile.
        """
        if not provider.sign_up:
            raise StrangerError("no_account")
        user = User("", identity.email, plan_of_new(settings), False, None, now)
        opened = await open_account(self._database, user, identity)
        if opened is None:
            raise StrangerError("no_account")
        return opened

    def _client(self, provider: OidcSettings) -> ProviderClient:
        client = self._clients.get(provider.name)
        if client is None or client.settings != provider:  # relay.toml was reloaded
            client = self._clients[provider.name] = ProviderClient(provider)
        return client

    async def _beside(self, work: Callable[[], T]) -> T:
        if not self._threads.acquire(blocking=False):
            raise TooOftenError(2)

        def call() -> T:
            try:
                return work()
            finally:
                self._threads.release()  # when the thread ends, whoever waits for it

        return await off_loop("provider", call)
