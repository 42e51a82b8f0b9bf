"""`relay doctor` beside a running relay: a proxy that buffers, and the limit of descriptors."""

import asyncio
import contextlib
import resource
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.durability.process import Running, serving
from tests.fakes.listening import listening

from .test_doctor import change, examined, of, prepared


@contextlib.asynccontextmanager
async def proxy(
    port: int, *, server: str = "", buffers: bool, cuts: bool = False
) -> AsyncIterator[int]:
    """A proxy for one request a connection; it passes octets on, or collects them all first."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        head = await reader.readuntil(b"\r\n\r\n")
        is_trickle = b"/v1/trickle" in head.split(b"\r\n")[0]
        up_writer.write(head.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        collected = b""
        while octets := await up_reader.read(65536):
            octets = octets.replace(b"\r\ndate:", f"\r\nserver: {server}\r\ndate:".encode())
            if buffers:
                collected += octets
            else:
                writer.write(octets)
            if cuts and is_trickle:
                break
        writer.write(collected)
        writer.close()
        up_writer.close()

    async with listening(serve) as own:
        yield own


@contextlib.contextmanager
def relay_of(folder: Path, **options: Any) -> Iterator[Running]:
    """A relay without an upstream that answers, and with an admin listener."""
    prepared(folder, "http://127.0.0.1:9")
    change(folder, 'admin_listen = ""\n', "")
    with serving(folder, **options) as running:
        yield running


async def buffering(folder: Path, port: int, level: str) -> list[str]:
    """The findings about buffering, with `port` as the public address."""
    change(folder, "[server]", f'[server]\npublic_url = "http://127.0.0.1:{port}"')
    _, found = await asyncio.to_thread(examined, folder)
    assert len([one for one in found if one["what"] == "buffering"]) == 1
    return of(found, "buffering", level)


@pytest.mark.parametrize(
    ("server", "remedy"),
    [
        pytest.param("nginx/1.26", "in its location set `proxy_buffering off;`", id="nginx"),
        pytest.param("Caddy", "flush_interval -1`", id="caddy"),
        pytest.param("", "nginx: `proxy_buffering off;`, Caddy", id="unknown"),
    ],
)
async def test_a_proxy_that_buffers_is_a_fault(tmp_path: Path, server: str, remedy: str) -> None:
    with relay_of(tmp_path) as running:
        async with proxy(running.port, server=server, buffers=True) as port:
            [found] = await buffering(tmp_path, port, "fault")
    assert "6 events, sent over 1.5 s, came within 0.0 s" in found
    assert remedy in found


async def test_a_proxy_that_passes_on_is_none(tmp_path: Path) -> None:
    with relay_of(tmp_path) as running:
        async with proxy(running.port, buffers=False) as port:
            [found] = await buffering(tmp_path, port, "ok")
    assert "one by one" in found


async def test_a_proxy_that_cuts_a_slow_stream_is_a_fault(tmp_path: Path) -> None:
    with relay_of(tmp_path) as running:
        async with proxy(running.port, buffers=False, cuts=True) as port:
            [found] = await buffering(tmp_path, port, "fault")
    assert "was cut" in found


def test_the_slow_stream_is_for_the_doctor_alone(tmp_path: Path) -> None:
    with relay_of(tmp_path) as running:
        for query in ("", "?", "?" + "0" * 32):
            url = f"http://127.0.0.1:{running.port}/v1/trickle{query}"
            with pytest.raises(HTTPError) as refused:
                urllib.request.urlopen(url, b"", timeout=5)
            assert refused.value.code == 404
            refused.value.close()


async def test_without_an_admin_listener_it_says_so(tmp_path: Path) -> None:
    prepared(tmp_path, "http://127.0.0.1:9")
    with serving(tmp_path) as running:
        [found] = await buffering(tmp_path, running.port, "warning")
    assert "server.admin_listen is empty" in found


def test_too_few_descriptors_of_the_relay_are_a_warning(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))

    with relay_of(tmp_path, preexec_fn=limited):
        _, found = examined(tmp_path, "--offline")
    [line] = of(found, "descriptors", "warning")
    assert "the running relay may have 512 files open" in line
    assert "LimitNOFILE=524288 below [Service]" in line
