"""A POST that comes again with its Idempotency-Key gets the first answer, and is not repeated.

An answer with a new key is not kept, since a key is nowhere in the database: the call is refused
when it comes again. Decides what is the same call. Must not know endpoints.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from relay.accounts import AccountError
from relay.errors import RelayError
from relay.provisioning.problems import Problem
from relay.store import idempotency
from relay.store.database import Database, StoreError

_NAME: Final = re.compile(rb"[\x21-\x7e]{1,255}")

Answer = tuple[int, bytes]
_working: Final[set[asyncio.Task[Answer]]] = set()  # the loop keeps no reference of its own


@dataclass(frozen=True, slots=True)
class SameCall:
    """The identity of a call: its admin key, the name that the field has, and its octets.
    `shows_key`: its answer has a new key."""

    admin_key: str
    name: bytes
    octets: bytes
    shows_key: bool


async def once(
    database: Database, same: SameCall, now: float, carry_out: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Carry a call out, or give its first answer again.

    Raises:
        Problem: 400 a wrong name; 409 it is another call's, or the call is being carried out.
    """
    if not _NAME.fullmatch(same.name):
        raise Problem(400, "Idempotency-Key has 1 to 255 printable ASCII characters.")
    digest = hashlib.sha256(same.octets).digest()
    kept_as = (same.admin_key, same.name.decode())
    kept = await idempotency.claim(database, kept_as, digest, now)
    if kept is not None:
        if kept.digest != digest:
            raise Problem(409, "This Idempotency-Key was sent with another call. Use a new one.")
        if not kept.status:
            raise Problem(
                409,
                "The same call is being carried out, or the relay ended meanwhile. Look whether "
                "it took effect before you send it with a new Idempotency-Key.",
            )
        if same.shows_key:
            raise Problem(
                409,
                "This call has been carried out before. Its key was shown in that answer alone; "
                "rotate the key to get another one.",
            )
        return kept.status, kept.body

    async def claimed() -> Answer:
        try:
            status, body = await carry_out()
        except (Problem, AccountError, RelayError, StoreError):  # nothing has changed
            await idempotency.release(database, kept_as)
            raise
        await idempotency.keep(database, kept_as, status, b"" if same.shows_key else body)
        return status, body

    # A caller who leaves does not stop it: the answer is for the call that comes again.
    work = asyncio.get_running_loop().create_task(claimed())
    _working.add(work)
    work.add_done_callback(_working.discard)
    return await asyncio.shield(work)
