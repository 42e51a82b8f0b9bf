"""Who is asking: a key to a caller, by one dict look-up."""

import time
from collections.abc import Iterable

from relay.errors import FORBIDDEN, UNAUTHENTICATED, RelayError
from relay.secret import digest
from relay.store.keys import LiveKey

_LATELY = 1024  # keys; cleared whenever a key is made or revoked
_WRONG = "Incorrect API key provided"  # the words by which LiteLLM tells a 401 from a 400
_HOW = "Send your key as `x-api-key: KEY` or `Authorization: Bearer KEY`."


class KeyIndex:
    """The live keys, by digest. `replace` swaps them all when the database has changed."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, LiveKey] = {}
        self._lately: dict[bytes, LiveKey] = {}  # by the key itself, to save hashing it again

    def replace(self, keys: Iterable[LiveKey]) -> None:
        """From now on these keys are live and no others."""
        self._by_digest = {key.digest: key for key in keys}
        self._lately.clear()

    def identify(self, headers: dict[bytes, bytes]) -> LiveKey:
        """The caller whose key a request carries.

        Claude Code may send both fields with different values: either may be the key.

        Raises:
            RelayError: 401 without a live key, 403 for a suspended account.
        """
        caller = self._lately.get(headers.get(b"x-api-key", b"")) or self.find(headers)
        if caller is None:
            if not headers.get(b"x-api-key") and not _bearer(headers):
                raise RelayError(UNAUTHENTICATED, f"There is no key in this request. {_HOW}")
            raise RelayError(
                UNAUTHENTICATED,
                f"{_WRONG}: it is not known here, perhaps mistyped or revoked. {_HOW}",
            )
        if caller.expires_at is not None and caller.expires_at <= time.time():
            raise RelayError(UNAUTHENTICATED, f"{_WRONG}: it has expired. Ask for a new one.")
        if caller.suspended:
            raise RelayError(
                FORBIDDEN, "This account is suspended. Ask the operator of this relay to resume it."
            )
        return caller

    def find(self, headers: dict[bytes, bytes]) -> LiveKey | None:
        """Whose key a request carries, be it good for anything or not; None: nobody's."""
        key = headers.get(b"x-api-key")
        caller = self._look_up(key) if key else None
        if caller is None and (bearer := _bearer(headers)):
            caller = self._look_up(bearer)
        return caller

    def _look_up(self, key: bytes) -> LiveKey | None:
        caller = self._lately.get(key)
        if caller is None:
            caller = self._by_digest.get(digest(key))
            if caller is not None:
                if len(self._lately) >= _LATELY:
                    self._lately.clear()
                self._lately[key] = caller
        return caller


def _bearer(headers: dict[bytes, bytes]) -> bytes:
    value = headers.get(b"authorization", b"")
    return value[7:].strip() if value[:7].lower() == b"bearer " else b""
