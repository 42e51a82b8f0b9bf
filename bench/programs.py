"""Load generators of other makers: where they are found, and the command that installs them.

Decides which folders are searched beside PATH. Must not know what a generator does.
"""

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.loadgen import HEAD_END, LoadError

INSTALLED_BY: Final = {
    "wrk": "apt-get install wrk",
    "oha": "cargo install oha --locked",
    "h2load": "apt-get install nghttp2-client",
}
# Where cargo and go put programs; neither folder need be on PATH.
_FOLDERS: Final = ("~/.cargo/bin", "~/go/bin")


def program(name: str) -> str | None:
    """The path of a load generator; None if it is not installed."""
    folders = [os.environ.get("PATH", os.defpath), *map(os.path.expanduser, _FOLDERS)]
    return shutil.which(name, path=os.pathsep.join(folders))


def missing(names: Sequence[str]) -> list[str]:
    """A sentence for each generator that is not installed."""
    return [
        f"{name} is not installed ({INSTALLED_BY[name]}): clients in Python stand in for it."
        for name in names
        if program(name) is None
    ]


def taken_apart(payload: bytes) -> tuple[str, list[str], bytes]:
    """The path of a request, its fields as options `-H`, and its body.

    A generator writes the fields of the connection by itself.
    """
    head, _, body = payload.partition(HEAD_END)
    start, *lines = head.decode().split("\r\n")
    fields: list[str] = []
    for line in lines:
        if line.partition(":")[0].lower() not in ("host", "content-length", "connection"):
            fields += ["-H", line]
    return start.split(" ")[1], fields, body


async def printed(argv: Sequence[str], within: float) -> bytes:
    """The standard output of a generator.

    Raises:
        LoadError: it failed, or took too long.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    name = Path(argv[0]).name
    try:
        async with asyncio.timeout(within):
            output, errors = await process.communicate()
    except TimeoutError:
        raise LoadError(f"{name} did not end within {within:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = (errors or output).decode(errors="replace")[-600:]
        raise LoadError(f"{name} ended with status {process.returncode}: {said}")
    return output
