"""h2spec, the conformance tests of RFC 9113 and RFC 7541, against the relay's own sockets."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest
import trustme

from tests.fakes.live import Live, RelayWith
from tests.net.pems import write_pair

H2SPEC = shutil.which("h2spec")
MIN_CASES = 146  # of version 2.2.1 in strict mode; later ones have more
SECONDS = 150

pytestmark = [
    pytest.mark.long,
    pytest.mark.alone,
    pytest.mark.skipif(
        H2SPEC is None,
        reason="needs h2spec: go install github.com/summerwind/h2spec/cmd/h2spec@latest",
    ),
]


async def _failures(port: int, *options: str) -> set[str]:
    """Run every case in strict mode; returns those that fail."""
    assert H2SPEC is not None
    process = await asyncio.create_subprocess_exec(
        *(H2SPEC, "-h", "127.0.0.1", "-p", str(port), "--strict", "-P", "/v1/models", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(SECONDS):
        report = (await process.communicate())[0].decode()
    total = re.search(r"(\d+) tests, \d+ passed, 0 skipped", report)
    assert total is not None, report
    assert int(total[1]) >= MIN_CASES
    return set(re.findall("× (.*)", report.partition("Failures:")[2]))


async def test_h2spec_passes_in_cleartext(live: Live) -> None:
    """A wrong preface is answered in HTTP/1.1, which the same port speaks."""
    assert await _failures(live.port) <= {"2: Sends invalid connection preface"}


async def test_h2spec_passes_over_tls(relay_with: RelayWith, tmp_path: Path) -> None:
    pair = write_pair(tmp_path, trustme.CA(), "127.0.0.1")
    live = await relay_with(server={"tls": {"cert": pair.cert, "key": pair.key}})
    assert not await _failures(live.port, "-t", "-k")
