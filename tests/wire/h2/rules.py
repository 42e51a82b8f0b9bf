"""The vocabulary of the rule tables: a rule is its section, a title, what a client does, a verdict.

The sections and titles are those of h2spec 2.6 (github.com/summerwind/h2spec), with the strict
cases.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hyperframe.frame import Frame

from relay.wire.h2.frames import frame
from tests.wire.h2.peer import Peer

Verdict = Callable[[Peer], None]


@dataclass(frozen=True)
class Rule:
    """One rule. `play` acts as the client on an open connection."""

    section: str
    title: str
    play: Callable[[Peer], object]
    verdict: Verdict
    serves: bool = True
    settings: tuple[tuple[int, int], ...] = ()

    def check(self) -> None:
        """Play the client, and judge."""
        peer = Peer(serves=self.serves).open(dict(self.settings))
        assert not peer.engine.failed
        self.play(peer)
        self.verdict(peer)


def parametrized(rules: list[Rule]) -> pytest.MarkDecorator:
    """One test a rule, named by its section and title."""
    ids = [f"{rule.section}: {rule.title}" for rule in rules]
    assert len(set(ids)) == len(ids)
    return pytest.mark.parametrize("rule", rules, ids=ids)


def connection_error(*codes: int) -> Verdict:
    """The connection ends with GOAWAY and one of the codes."""

    def verdict(peer: Peer) -> None:
        assert peer.engine.failed
        assert peer.goaway in codes

    return verdict


def stream_error(code: int, stream: int = 1) -> Verdict:
    """The stream is reset with the code, and the connection lives."""

    def verdict(peer: Peer) -> None:
        assert peer.reset_codes.get(stream) == code
        assert peer.lives()

    return verdict


def answered(stream: int = 1) -> Verdict:
    """The request on a stream has a complete answer, and the connection lives."""

    def verdict(peer: Peer) -> None:
        assert peer.is_answered(stream)
        assert not peer.reset_codes
        assert peer.lives()

    return verdict


def lives(peer: Peer) -> None:
    """The connection answers a PING."""
    assert peer.lives()


def sizes(*expected: int) -> Verdict:
    """The DATA frames on stream 1 have these sizes."""

    def verdict(peer: Peer) -> None:
        frames = [one for one in peer.frames if one.stream_id == 1 and one.type == 0]
        assert [len(one.data) for one in frames] == list(expected)  # type: ignore[attr-defined]

    return verdict


def raw(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """A frame of any layout."""
    return frame(kind, flags, stream, payload)


def sends(*frames: Frame | bytes) -> Callable[[Peer], object]:
    """A client that sends frames which need no encoder."""
    return lambda peer: peer.send(*frames)
