"""Waits for a state of the process under test that no event announces."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], *, within: float = 5.0) -> None:
    """Return once `condition()` is true.

    Raises:
        TimeoutError: it was not true within so many seconds.
    """
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.003)
