"""Where a conversation belongs, by a hash that all machines compute alike.

Rendezvous hashing: each upstream has a distance to each conversation, and the nearest one serves
it. An upstream that leaves moves its own conversations only, and each upstream gets conversations
by its weight: a distance is exponentially distributed, with the weight as its rate.

Decides nothing of an upstream's state. Must not know requests.
"""

import hashlib
from math import log
from typing import Final
from zlib import crc32

_PRIME: Final = 1_073_741_789  # the largest below 2**30: products need no large integers
_LOG_PRIME: Final = log(_PRIME)


def mark_of(name: str) -> int:
    """The multiplier of an upstream: for distinct ones, products with a seed are independent."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (_PRIME - 1) + 1


def seed_of(account: str, conversation: bytes) -> int:
    """A number for a conversation of an account, of 30 bits."""
    return crc32(conversation, crc32(account.encode())) % _PRIME


def distance(seed: int, mark: int, stride: float) -> float:
    """How far an upstream is from a conversation; `stride` is 1/weight."""
    return (_LOG_PRIME - log(seed * mark % _PRIME + 1)) * stride
