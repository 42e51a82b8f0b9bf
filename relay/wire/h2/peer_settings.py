"""The settings that a peer has sent (RFC 9113 §6.5).

Decides whether a value is legal. Must not know what it changes.
"""

from typing import Final

from relay.wire.h2.frames import (
    DEFAULT_FRAME_SIZE,
    ENABLE_PUSH,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    INITIAL_WINDOW_SIZE,
    LARGEST_FRAME_SIZE,
    LARGEST_WINDOW,
    MAX_FRAME_SIZE,
    PROTOCOL_ERROR,
    SETTING,
)

_SETTING_OCTETS: Final = SETTING.size


class ProtocolError(Exception):
    """A fault that ends the connection; `code` is the error code of its GOAWAY."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The (identifier, value) of a SETTINGS frame.

    Raises:
        ProtocolError: a value is not legal.
    """
    if len(payload) % _SETTING_OCTETS:
        raise ProtocolError(FRAME_SIZE_ERROR)
    values = list(SETTING.iter_unpack(payload))
    for identifier, value in values:
        if identifier == ENABLE_PUSH and value > 1:
            raise ProtocolError(PROTOCOL_ERROR)
        if identifier == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ProtocolError(FLOW_CONTROL_ERROR)
        if identifier == MAX_FRAME_SIZE and not DEFAULT_FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
            raise ProtocolError(PROTOCOL_ERROR)
    return values
