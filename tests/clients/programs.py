"""Runs a client program to its end, within a time limit."""

import asyncio
import contextlib
import os
import re
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
    process = await _start(command, cwd, env, asyncio.subprocess.PIPE)
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


async def shows(
    pattern: str, *command: str | Path, cwd: Path, env: dict[str, str], wait: float
) -> str:
    """The output of a command until it matches, ends, or `wait` seconds have passed.

    A client that waits for the end of a limit goes on for hours: it is killed. White space
    counts as one space, since a client breaks lines as it likes.
    """
    process = await _start(command, cwd, env, asyncio.subprocess.STDOUT)
    assert process.stdout is not None
    seen, words = b"", ""
    try:
        async with asyncio.timeout(wait):
            while piece := await process.stdout.read(65536):
                seen += piece
                words = " ".join(seen.decode(errors="replace").split())
                if re.search(pattern, words):
                    break
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return words


async def _start(
    command: tuple[str | Path, ...], cwd: Path, env: dict[str, str], errors: int
) -> asyncio.subprocess.Process:
    """Start a command in a group of its own."""
    return await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8", **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
    )
