"""The second step of a log-in: six digits of an authenticator app (TOTP, RFC 6238), or a recovery
code.

Decides which codes are right, that each is right once, and how often one may try. Must not know
pages or SQL.
"""

import hashlib
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Final

from relay.accounts import AccountError
from relay.accounts.log_in import TooOftenError
from relay.accounts.sealing import Sealing
from relay.accounts.throttle import Throttle
from relay.net.off_loop import off_loop
from relay.secret import same
from relay.store import factors
from relay.store.audit import Actor
from relay.store.database import Database
from relay.store.users import User

STEP_SECONDS: Final = 30
RECOVERY_CODES: Final = 10
_DIGITS: Final = 6
_SKEW: Final = 1  # steps, either way, by which a clock may be wrong
_TRIES_A_MINUTE: Final = 5
_TRIES_AN_HOUR: Final = 20  # three of a million codes are right: one is found in two years
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # none that looks like another
_RECOVERY_CHARACTERS: Final = 16  # 79 bits
_GROUP: Final = 4
_WRONG: Final = "the code is wrong, too old, or was used before"


class WrongCodeError(AccountError):
    """The code is wrong or too old; with the fault "used", it was used before."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """The secret for an authenticator app: as text, and as a picture."""

    secret: str
    uri: str


class SecondStep:
    """Authenticator apps and recovery codes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sealing = Sealing(database)
        self._by_minute = Throttle(_TRIES_A_MINUTE)
        self._by_hour = Throttle(_TRIES_AN_HOUR, 3600)

    async def is_asked(self, user_id: str) -> bool:
        """Whether this account's log-ins have a second step."""
        totp = await factors.find_totp(self._database, user_id)
        return totp is not None and totp.confirmed_at is not None

    async def begin(self, user: User) -> bool:
        """Make a secret for an app, which its first code puts into force; False if there is an app
        already."""
        import pyotp

        sealed = await self._sealing.seal(pyotp.random_base32().encode(), user.id)
        return await factors.put_totp(self._database, user.id, sealed)

    async def enrolment(self, user: User, site_name: str) -> Enrolment | None:
        """The secret for the app of an account; None unless its first code is awaited."""
        import pyotp

        totp = await factors.find_totp(self._database, user.id)
        if totp is None or totp.confirmed_at is not None:
            return None
        secret = (await self._sealing.open(totp.sealed, user.id)).decode()
        uri = pyotp.TOTP(secret).provisioning_uri(name=user.email, issuer_name=site_name)
        return Enrolment(secret, uri)

    async def confirm(self, user: User, code: str, now: float, address: str = "") -> list[str]:
        """Put the app into force: the recovery codes, which nobody can read again.

        Raises:
            TooOftenError: there were too many tries.
            WrongCodeError: it is no code of the app.
        """
        self._count(user.id, now)
        totp = await factors.find_totp(self._database, user.id)
        step = None if totp is None else await self._step_of(totp, _plain(code), now)
        if totp is None or step is None:
            raise WrongCodeError("no code of this app")
        codes = _new_recovery_codes()
        digests = [_recovery_digest(user.id, _plain(one)) for one in codes]
        acting = self._acting(user.id, address)
        if not await factors.confirm_totp(acting, totp, step, digests, now):
            raise WrongCodeError("the app is in force already")
        self._forgive(user.id)
        return codes

    async def check(self, user_id: str, code: str, now: float, address: str = "") -> None:
        """Accept a code of the app, or a recovery code, once.

        Raises:
            TooOftenError: there were too many tries.
            WrongCodeError: the code is wrong, too old, or was used before.
        """
        self._count(user_id, now)
        plain = _plain(code)
        if len(plain) != _RECOVERY_CHARACTERS:
            await self._use_code(user_id, plain, now)
        elif not await factors.use_recovery_code(
            self._acting(user_id, address), user_id, _recovery_digest(user_id, plain), now
        ):
            raise WrongCodeError(_WRONG)
        self._forgive(user_id)

    async def new_recovery_codes(self, user: User, now: float, address: str = "") -> list[str]:
        """Other recovery codes; those of before are void."""
        codes = _new_recovery_codes()
        digests = [_recovery_digest(user.id, _plain(code)) for code in codes]
        acting = self._acting(user.id, address)
        await factors.replace_recovery_codes(acting, user.id, digests, now)
        return codes

    def _acting(self, user_id: str, address: str) -> Database:
        """The database, for changes by the account itself: the audit log names it."""
        return self._database.by(Actor(user_id, address))

    async def _use_code(self, user_id: str, code: str, now: float) -> None:
        """Use up a code of the app. Raises WrongCodeError."""
        totp = await factors.find_totp(self._database, user_id)
        step = None
        if totp is not None and totp.confirmed_at is not None:
            step = await self._step_of(totp, code, now)
        if step is None:
            raise WrongCodeError(_WRONG)
        if not await factors.use_step(self._database, user_id, step):
            raise WrongCodeError(_WRONG, "used")

    async def _step_of(self, totp: factors.Totp, code: str, now: float) -> int | None:
        """The step whose code this is, among those that a clock may be at, or None."""
        import pyotp

        if len(code) != _DIGITS or not code.isascii() or not code.isdecimal():
            return None
        app = pyotp.TOTP((await self._sealing.open(totp.sealed, totp.user_id)).decode())
        present = int(now) // STEP_SECONDS
        found = None
        for step in range(present - _SKEW, present + _SKEW + 1):
            if same(code, app.generate_otp(step)):
                found = step
        return found

    def _count(self, user_id: str, now: float) -> None:
        """Raises TooOftenError: there were too many tries."""
        for throttle in (self._by_minute, self._by_hour):
            seconds = throttle.wait(user_id, now)
            if seconds:
                raise TooOftenError(seconds)

    def _forgive(self, user_id: str) -> None:
        self._by_minute.forgive(user_id)
        self._by_hour.forgive(user_id)


async def picture(uri: str) -> str:
    """A QR code as SVG for a page. It takes some milliseconds, so it is drawn beside the loop."""

    def draw() -> str:
        import segno

        code = segno.make(uri, error="m", micro=False)
        return code.svg_inline(border=3, dark="#000", light="#fff", omitsize=True)

    return await off_loop("picture", draw)


def _new_recovery_codes() -> list[str]:
    return [_new_recovery_code() for _ in range(RECOVERY_CODES)]


def _new_recovery_code() -> str:
    text = "".join(secrets.choice(_ALPHABET) for _ in range(_RECOVERY_CHARACTERS))
    return "-".join(text[at : at + _GROUP] for at in range(0, _RECOVERY_CHARACTERS, _GROUP))


def _plain(code: str) -> str:
    """A code without the spaces and hyphens that people write, its digits no longer full-width."""
    return "".join(unicodedata.normalize("NFKC", code[:64]).split()).replace("-", "").casefold()


def _recovery_digest(user_id: str, plain: str) -> bytes:
    """The stored digest of a code. It has 79 random bits, so a slow hash would protect nothing."""
    return hashlib.sha256(f"{user_id}:{plain}".encode("utf-8", "replace")).digest()
