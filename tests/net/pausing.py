"""Callers that pause reading.

The type of `StreamWriter.transport` declares its writing side only.
"""

import asyncio
from typing import cast


def pause_reading(writer: asyncio.StreamWriter) -> None:
    """Stop reading from the connection, so the kernel's buffers fill."""
    _transport(writer).pause_reading()


def resume_reading(writer: asyncio.StreamWriter) -> None:
    """Read from the connection again."""
    _transport(writer).resume_reading()


def _transport(writer: asyncio.StreamWriter) -> asyncio.Transport:
    return cast(asyncio.Transport, writer.transport)
