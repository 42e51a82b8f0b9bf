"""One order at a time, also while one process takes the place of another.

The turn is a lock on a file, so it ends with its process. An authority comes to the process that
listens: that one answers for an order that the process before it still finishes. Decides who
orders. Must not know the steps of an order. All functions block.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from relay.net.acme import keys
from relay.net.acme.challenges import Challenges
from relay.net.acme.folder import AcmeFolder

_POLL_SECONDS: Final = 0.02  # an authority comes some 0.1 s after it was asked to
_TURN_TIMEOUT_SECONDS: Final = 240.0


class Proof(msgspec.Struct, frozen=True):
    """The answer to a challenge, as other processes read it. `token` is "" with TLS-ALPN-01."""

    domain: str
    token: str
    authorization: str


@contextlib.contextmanager
def proven(folder: AcmeFolder, answers: Challenges, proof: Proof) -> Iterator[None]:
    """Answer a challenge within the block, here and in a process that takes over.

    Raises:
        OSError: the answer cannot be written.
    """
    folder.write(folder.proof, msgspec.json.encode(proof))
    try:
        with _answered(folder, answers, proof):
            yield
    finally:
        folder.remove(folder.proof)


@contextlib.contextmanager
def turn(folder: AcmeFolder) -> Iterator[None]:
    """Wait for the turn, and have it within the block.

    Raises:
        OSError: the lock's file cannot be used.
        ValueError: another order does not end.
    """
    lock = folder.open_lock()
    try:
        until = time.monotonic() + _TURN_TIMEOUT_SECONDS
        while not _is_taken(lock):
            if time.monotonic() > until:
                raise ValueError("another order is under way, and does not end")
            time.sleep(_POLL_SECONDS)
        folder.remove(folder.proof)  # of a process that was killed
        yield
    finally:
        os.close(lock)


class Follower:
    """Answers for the order of the process that served before, until it has ended."""

    def __init__(self, folder: AcmeFolder, answers: Challenges) -> None:
        self._folder = folder
        self._answers = answers
        self._given = contextlib.ExitStack()
        self._proof = b""

    def follow(self) -> bool:
        """Answer the current challenge; return whether an order runs. Raises OSError."""
        lock = self._folder.open_lock()
        try:
            is_under_way = not _is_taken(lock)
        finally:
            os.close(lock)
        found = self._folder.read(self._folder.proof) if is_under_way else None
        if found != self._proof:
            self._given.close()
            self._proof = found or b""
            with contextlib.suppress(msgspec.MsgspecError):  # of another version
                proof = msgspec.json.decode(found or b"", type=Proof)
                self._given.enter_context(_answered(self._folder, self._answers, proof))
        return is_under_way

    def follow_to_end(self) -> None:
        """Go on until no order is under way. Raises OSError."""
        until = time.monotonic() + _TURN_TIMEOUT_SECONDS
        try:
            while self.follow() and time.monotonic() < until:
                time.sleep(_POLL_SECONDS)
        finally:
            self._given.close()


def _answered(
    folder: AcmeFolder, answers: Challenges, proof: Proof
) -> contextlib.AbstractContextManager[None]:
    if proof.token:
        return answers.http(proof.token, proof.authorization)
    context = keys.challenge_context(folder, proof.domain, proof.authorization)
    return answers.tls(proof.domain, context)


def _is_taken(lock: int) -> bool:
    """Take the lock, unless another order has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
