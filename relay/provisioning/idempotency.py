"""A POST that comes again with its Idempotency-Key gets the first answer, and is not repeated.

An answer with a new key is not kept, since a key is nowhere in the database: the call is refused
when it comes again. Decides what is the same call. Must not know endpoints.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from relay.provisioning.problems import Problem
from relay.store import idempotency
from relay.store.database import Database

_NAME: Final = re.compile(rb"[\x21-\x7e]{1,255}")

Answer = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class SameCall:
    """What makes a call the same one: its admin key, the name that the field has, and its octets.
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
            raise Problem(409, "The same call is being carried out. Try again in a moment.")
        if same.shows_key:
            raise Problem(
                409,
                "This call has been carried out before. Its key was shown in that answer alone; "
                "rotate the key to get another one.",
            )
        return kept.status, kept.body
    try:
        status, body = await carry_out()
    except BaseException:
        await idempotency.release(database, kept_as)
        raise
    await idempotency.keep(database, kept_as, status, b"" if same.shows_key else body)
    return status, body
