"""Passkeys (WebAuthn): made for an account, and answers by which it is opened.

Decides for which site passkeys are, and which answers are right: to a challenge of ours, in this
browser, once, within five minutes, by somebody whom the device has recognised. Must not know pages
or SQL. The library is imported beside the loop, which it would hold up for half a second.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from relay.accounts import AccountError
from relay.accounts.ceremonies import Ceremonies
from relay.accounts.log_in import TooOftenError
from relay.accounts.throttle import Throttle, address_name
from relay.config import Settings
from relay.net.off_loop import off_loop
from relay.store import passkeys as stored
from relay.store.audit import Actor
from relay.store.database import Database
from relay.store.passkeys import Passkey
from relay.store.users import User

T = TypeVar("T")

MAX_PASSKEYS: Final = 20  # of an account
MAX_NAME: Final = 60
_TRIES_A_MINUTE: Final = 20  # from an address
_MAX_IN_THREADS: Final = 16


class WrongPasskeyError(AccountError):
    """The answer is wrong. Faults: "old", its challenge is over; "unknown", there is no such
    passkey here."""


class CannotAddError(AccountError):
    """The passkey is known already, or with the fault "many" the account has too many."""


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """The site that passkeys are for: its host, the origin of its pages, and its name."""

    id: str
    origin: str
    name: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge that a passkey signs. `session`: of its maker; `user_id`: who must answer."""

    octets: bytes
    session: str = ""
    user_id: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A challenge for a browser: what its script needs, and the token that it brings back."""

    options: str  # JSON
    token: str


def relying_party(settings: Settings) -> RelyingParty | None:
    """The site as browsers know it; None where passkeys cannot work: at an address without a name,
    or without https."""
    parts = urlsplit(settings.server.public_url)
    host = (parts.hostname or "").rstrip(".")
    is_local = host == "localhost" or host.endswith(".localhost")
    if not host or _is_address(host) or (parts.scheme != "https" and not is_local):
        return None
    default = 443 if parts.scheme == "https" else 80
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return RelyingParty(host, f"{parts.scheme}://{host}{port}", settings.web.name)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class Passkeys:
    """Makes passkeys and checks their answers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._challenges: Ceremonies[Challenge] = Ceremonies()
        self._by_address = Throttle(_TRIES_A_MINUTE)
        self._in_threads = 0

    def count(self, address: str, now: float) -> None:
        """Count a log-in that somebody begins.

        Raises:
            TooOftenError: there were too many from this address.
        """
        seconds = self._by_address.wait(address_name(address), now)
        if seconds:
            raise TooOftenError(seconds)

    async def ask_to_make(
        self, site: RelyingParty, user: User, session: str, now: float
    ) -> Question:
        """Ask a browser for a new passkey of the account that is logged in."""
        known = await stored.list_passkeys(self._database, user.id)

        def work() -> tuple[str, bytes]:
            from webauthn import generate_registration_options, options_to_json
            from webauthn.helpers import structs

            options = generate_registration_options(
                rp_id=site.id,
                rp_name=site.name,
                user_name=user.email,
                user_id=user.id.encode(),
                authenticator_selection=structs.AuthenticatorSelectionCriteria(
                    resident_key=structs.ResidentKeyRequirement.REQUIRED,
                    user_verification=structs.UserVerificationRequirement.REQUIRED,
                ),
                exclude_credentials=[
                    structs.PublicKeyCredentialDescriptor(id=one.id) for one in known
                ],
            )
            return options_to_json(options), options.challenge

        text, octets = await self._beside(work)
        token = self._challenges.start(user.id, Challenge(octets, session), now)
        return Question(text, token)

    async def add(
        self, site: RelyingParty, user: User, session: str, answer: "Answer", name: str
    ) -> None:
        """Add a passkey that a browser has made.

        Raises:
            WrongPasskeyError: it was not made for a challenge of this session.
            CannotAddError: it is known already, or the account has too many.
        """
        challenge = self._challenges.take(answer.token, answer.now)
        if challenge is None or not challenge.session or challenge.session != session:
            raise WrongPasskeyError("no challenge of this session", "old")
        credential = answer.document()

        def work() -> Passkey:
            from webauthn import verify_registration_response

            verified = verify_registration_response(
                credential=credential,
                expected_challenge=challenge.octets,
                expected_rp_id=site.id,
                expected_origin=site.origin,
                require_user_verification=True,
            )
            return Passkey(
                verified.credential_id,
                user.id,
                verified.credential_public_key,
                verified.sign_count,
                name,
                answer.now,
            )

        passkey = await self._beside(work)
        acting = self._database.by(Actor(user.id, answer.address))
        if not await stored.add_passkey(acting, passkey, MAX_PASSKEYS):
            own = await stored.list_passkeys(self._database, user.id)
            is_full = len(own) >= MAX_PASSKEYS
            raise CannotAddError("known already, or too many", "many" if is_full else "known")

    async def ask(
        self, site: RelyingParty, address: str, now: float, user_id: str = ""
    ) -> Question:
        """Ask a browser for the answer of a passkey: of this account, or of any."""
        known = await stored.list_passkeys(self._database, user_id) if user_id else []

        def work() -> tuple[str, bytes]:
            from webauthn import generate_authentication_options, options_to_json
            from webauthn.helpers import structs

            options = generate_authentication_options(
                rp_id=site.id,
                user_verification=structs.UserVerificationRequirement.REQUIRED,
                allow_credentials=[
                    structs.PublicKeyCredentialDescriptor(id=one.id) for one in known
                ],
            )
            return options_to_json(options), options.challenge

        text, octets = await self._beside(work)
        name = user_id or address_name(address)
        token = self._challenges.start(name, Challenge(octets, user_id=user_id), now)
        return Question(text, token)

    async def check(self, site: RelyingParty, answer: "Answer", user_id: str = "") -> User:
        """The account that a passkey's answer opens; `user_id`: it must be this one.

        Raises:
            WrongPasskeyError: see there; or its count of uses went back, as that of a copy does.
        """
        challenge = self._challenges.take(answer.token, answer.now)
        if challenge is None or challenge.session or challenge.user_id != user_id:
            raise WrongPasskeyError("no challenge of this browser", "old")
        credential = answer.document()
        found = await stored.find_passkey(self._database, await self._id_of(credential))
        if found is None or (user_id and found[1].id != user_id):
            raise WrongPasskeyError("no passkey that is known here", "unknown")
        passkey, user = found

        def work() -> int:
            from webauthn import verify_authentication_response
            from webauthn.helpers import parse_authentication_credential_json

            parsed = parse_authentication_credential_json(credential)
            if parsed.response.user_handle not in (None, user.id.encode()):
                raise ValueError("of another account")
            return verify_authentication_response(
                credential=parsed,
                expected_challenge=challenge.octets,
                expected_rp_id=site.id,
                expected_origin=site.origin,
                credential_public_key=passkey.public_key,
                credential_current_sign_count=passkey.sign_count,
                require_user_verification=True,
            ).new_sign_count

        count = await self._beside(work)
        if not await stored.use_passkey(self._database, passkey, count, answer.now):
            raise WrongPasskeyError("used twice at once")
        return user

    async def _id_of(self, credential: dict[str, Any]) -> bytes:
        def work() -> bytes:
            from webauthn.helpers import parse_authentication_credential_json

            return parse_authentication_credential_json(credential).raw_id

        return await self._beside(work)

    async def _beside(self, work: Callable[[], T]) -> T:
        """Call the library beside the loop.

        Raises:
            WrongPasskeyError: it cannot read what a browser has sent, or finds it wrong.
            TooOftenError: too many others are at it.
        """
        if self._in_threads >= _MAX_IN_THREADS:
            raise TooOftenError(1)

        def call() -> T:
            from webauthn.helpers.exceptions import WebAuthnException

            try:
                return work()
            except (WebAuthnException, ValueError, TypeError, LookupError, AttributeError) as error:
                raise WrongPasskeyError("the answer is wrong") from error

        self._in_threads += 1
        try:
            return await off_loop("passkeys", call)
        finally:
            self._in_threads -= 1


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a browser: the token of its challenge, and JSON of its passkey."""

    token: str
    text: str
    now: float
    address: str = ""  # where it comes from, for the audit log

    def document(self) -> dict[str, Any]:
        """The JSON.

        Raises:
            WrongPasskeyError: it is none.
        """
        try:
            return msgspec.json.decode(self.text, type=dict[str, Any])
        except msgspec.DecodeError:
            raise WrongPasskeyError("no JSON object") from None
