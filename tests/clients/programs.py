"""Runs a client program to its end, within a time limit."""

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """The result of a program."""

    status: int
    out: str
    err: str
    seconds: float


async def run(*command: str | Path, cwd: Path, env: dict[str, str], wait: float = 30.0) -> Ended:
    """Run a command; after `wait` seconds, kill it with all its children.

    Its environment is empty but for PATH, HOME, LANG and `env`.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8", **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(wait):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode(), loop.time() - started)
