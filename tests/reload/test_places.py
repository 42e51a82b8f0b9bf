"""Settings of where things go: proxies to upstreams, form and file of the log, redirects."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme

from relay.config import ConfigError
from tests.fakes.caller import exchange
from tests.fakes.proxy import Proxy, running_proxy
from tests.fakes.until import until
from tests.fakes.upstream import OK, UpstreamWith, always
from tests.net.pems import write_pair

from .reloading import Reloading, reloading
from .test_reload import ask, row


async def test_an_upstream_is_reached_by_another_proxy(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    """The connections through the one before are not used again."""
    upstream = await upstream_with(always(OK))
    async with (
        running_proxy(Proxy("http")) as one,
        running_proxy(Proxy("socks5")) as other,
        reloading(tmp_path, upstream=[row(upstream, egress=one.url())]) as relay,
    ):
        assert (await ask(relay))[0] == 200
        for proxy, url in ((other, other.url()), (None, None), (one, one.url())):
            before = {id(each): each.connections for each in (one, other)}
            more = {} if url is None else {"egress": url}
            report = await relay.reload(upstream=[row(upstream, **more)])
            assert [line.split(":")[0] for line in report.changed] == ["upstream[main].egress"]
            assert (await ask(relay))[0] == 200
            for each in (one, other):
                assert each.connections - before[id(each)] == (each is proxy)
        assert len(upstream.requests) == 4


async def test_a_proxy_in_a_file_is_read_again(tmp_path: Path, upstream_with: UpstreamWith) -> None:
    upstream = await upstream_with(always(OK))
    async with running_proxy(Proxy("http")) as one, running_proxy(Proxy("http")) as other:
        egress = tmp_path / "egress"
        egress.write_text(one.url("user:first@"))
        async with reloading(tmp_path, upstream=[row(upstream, egress=f"file:{egress}")]) as relay:
            assert (await ask(relay))[0] == 200
            egress.write_text(other.url("user:second@"))
            report = await relay.reload()
            assert report.changed == ["upstream[main].egress: has a new value"]
            assert (await ask(relay))[0] == 200
            assert (one.connections, other.connections) == (1, 1)
            egress.write_text("no proxy")
            with pytest.raises(ConfigError) as refused:
                await relay.reload()
            assert refused.value.path == "upstream[0].egress"
            assert (await ask(relay))[0] == 200


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


async def test_the_log_changes_its_form_and_its_file(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    upstream = await upstream_with(always(OK))
    first, second = tmp_path / "access.log", tmp_path / "second.log"
    async with reloading(tmp_path, upstream=[row(upstream)]) as relay:
        await ask(relay)
        report = await relay.reload(log={"format": "text"})
        assert report.changed == ['log.format: "json" → "text"']
        await until(lambda: len(lines(first)) == 1)
        assert json.loads(lines(first)[0])["status"] == 200
        await ask(relay)
        report = await relay.reload(log={"format": "json", "file": str(second)})
        assert len(report.changed) == 2
        await until(lambda: len(lines(first)) == 2)
        assert " 200 " in lines(first)[1]
        assert not lines(first)[1].startswith("{")
        await ask(relay)
        await relay.reload(log={})
        await until(lambda: len(lines(second)) == 1)
        assert json.loads(lines(second)[0])["status"] == 200
        with pytest.raises(ConfigError) as refused:
            await relay.reload(log={"file": str(tmp_path / "none" / "log")})
        assert refused.value.path == "log.file"
        await ask(relay)
        await relay.reload(log={"access": False})
        await until(lambda: len(lines(first)) == 3)


async def test_redirects_stay_until_a_restart(tmp_path: Path, upstream_with: UpstreamWith) -> None:
    """The address is named; what the redirects lead to follows the file at once."""
    upstream = await upstream_with(always(OK))
    pair = write_pair(tmp_path, trustme.CA(), "a.example")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server: dict[str, Any] = {
        "listen": ["127.0.0.1:0"],
        "admin_listen": "",
        "public_url": "https://a.example",
        "tls": {"cert": pair.cert, "key": pair.key},
        "redirect_listen": [f"127.0.0.1:{port}"],
    }

    async def location(relay: Reloading) -> bytes:
        assert relay.live.app.plain is not None
        answer = await exchange(port, b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 308 ")
        return answer.split(b"location: ")[1].split(b"\r\n")[0]

    async with reloading(tmp_path, upstream=[row(upstream)], server=server) as relay:
        assert await location(relay) == b"https://a.example/a"
        changed = {**server, "public_url": "https://b.example", "redirect_listen": ["127.0.0.1:1"]}
        for known in (False, True):
            report = await relay.reload(server=changed)
            assert report.restart == [
                f'server.redirect_listen: ["127.0.0.1:{port}"] → ["127.0.0.1:1"]'
            ]
            assert len(report.changed) == (0 if known else 1)
            assert await location(relay) == b"https://b.example/a"
        assert relay.live.app.settings.server.redirect_listen is not None
