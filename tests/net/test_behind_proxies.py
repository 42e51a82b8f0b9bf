"""Behind nginx and Caddy as in relay/docs/operating.md: streams are unbuffered, callers named.

The page's own snippets run here, with other ports and certificates.
"""

import asyncio
import contextlib
import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from tests.fakes.caller import BODY
from tests.fakes.live import Live, RelayWith
from tests.fakes.ports import free_port
from tests.net.acme.pebble import wait_for
from tests.net.pems import trusting, write_pair

PAGE = (Path(__file__).parents[2] / "relay" / "docs" / "operating.md").read_text()
CALLER = "127.0.0.9"  # a caller's address, which is not the proxy's


def snippet(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield
    finally:
        process.terminate()
        process.wait(5)


@contextlib.contextmanager
def nginx(folder: Path, relay: Live, authority: trustme.CA) -> Iterator[str]:
    port = free_port()
    pair = write_pair(folder, authority, "localhost", stem="nginx")
    server = snippet("nginx").replace("127.0.0.1:8080", f"127.0.0.1:{relay.port}")
    server = server.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    server = re.sub(r"/etc/letsencrypt/\S*/fullchain.pem", pair.cert, server)
    server = re.sub(r"/etc/letsencrypt/\S*/privkey.pem", pair.key, server)
    paths = "".join(
        f"{name}_temp_path {folder}/nginx-{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\n"
        f"pid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}{server}}}\n"
    )
    with running(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], port):
        yield f"https://localhost:{port}"


@contextlib.contextmanager
def caddy(folder: Path, relay: Live, authority: trustme.CA) -> Iterator[str]:
    port = free_port()
    site = snippet("text").replace("127.0.0.1:8080", f"127.0.0.1:{relay.port}")
    site = site.replace("relay.example {", f"http://localhost:{port} {{\nbind 127.0.0.1")
    (folder / "Caddyfile").write_text("{\nadmin off\n}\n" + site)
    command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with running(command, port):
        yield f"http://localhost:{port}"


@pytest.mark.parametrize("proxy", [nginx, caddy], ids=["nginx", "caddy"])
async def test_streams_pass_unbuffered_and_the_log_has_the_caller(
    relay_with: RelayWith, tmp_path: Path, proxy: type[contextlib.AbstractContextManager[str]]
) -> None:
    program = proxy.__name__
    if shutil.which(program) is None:
        pytest.skip(f"needs Debian's package {program}")
    authority = trustme.CA()
    relay = await relay_with(server={"trusted_proxies": ["127.0.0.1"]})
    client = httpx.AsyncClient(
        verify=trusting(authority),
        timeout=10,
        transport=httpx.AsyncHTTPTransport(verify=trusting(authority), local_address=CALLER),
    )
    with proxy(tmp_path, relay, authority) as url:  # type: ignore[call-arg]
        body = {**BODY, "stream": True}
        arrived: list[float] = []
        script = {"x-simulate": "tokens=20;pace=20", "x-forwarded-for": "8.8.8.8"}
        async with (
            client,
            client.stream(
                "POST", f"{url}/v1/messages", json=body, headers={**relay.headers, **script}
            ) as answer,
        ):
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    arrived.append(time.monotonic())
        assert len(arrived) > 15
        assert arrived[-1] - arrived[0] > 0.5  # a buffer would bring all at once
        gaps = [later - earlier for earlier, later in itertools.pairwise(arrived)]
        assert sum(gap > 0.02 for gap in gaps) > 10
    await asyncio.sleep(0)
    assert [record["peer"] for record in relay.log()] == [CALLER]
