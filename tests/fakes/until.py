"""Waiting for what nobody announces: the state of the process under test."""

import asyncio
from collections.abc import Callable


async def until(so: Callable[[], object], *, within: float = 5.0) -> None:
    """Return once `so()` is true.

    Raises:
        TimeoutError: it did not become so.
    """
    async with asyncio.timeout(within):
        while not so():  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.003)
