"""Settings that are exchanged while the relay serves: plans, upstreams, secrets, limits."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from relay.config import ConfigError
from relay.telemetry import trace_export
from tests.fakes.caller import BODY, connected, read_answer, read_head, request
from tests.fakes.collector import running_collector
from tests.fakes.until import until
from tests.fakes.upstream import OK, Seen, Upstream, UpstreamWith, always

from .reloading import Reloading, reloading

LIMITED = [{"id": "free", "limits": [{"requests": 5, "per": "5h"}]}]


def row(upstream: Upstream, name: str = "main", **more: Any) -> dict[str, Any]:
    return {"name": name, "base_url": upstream.url, "api_key": "first-credential", **more}


async def ask(
    relay: Reloading, body: dict[str, Any] | None = None
) -> tuple[int, dict[bytes, bytes]]:
    """Status and fields of one request on a connection of its own."""
    async with connected(relay.live.port) as (reader, writer):
        writer.write(request(relay.live.key, body))
        status, fields, _ = await read_answer(reader)
    return status, fields


async def test_a_plan_changes_and_what_is_used_stays_used(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    upstream = await upstream_with(always(OK))
    async with reloading(tmp_path, upstream=[row(upstream)], plan=LIMITED) as relay:
        for _ in range(3):
            assert (await ask(relay))[0] == 200
        report = await relay.reload(
            plan=[{"id": "free", "limits": [{"requests": 10, "per": "5h"}], "max_keys": 3}]
        )
        assert len(report.changed) == 1
        assert report.changed[0].startswith("plan[free].limits: [{")
        status, fields = await ask(relay)
        assert (status, fields[b"x-ratelimit-limit"]) == (200, b"10")
        assert fields[b"x-ratelimit-remaining"] == b"6"
        await relay.reload(plan=[{"id": "free", "limits": [{"requests": 4, "per": "5h"}]}])
        assert (await ask(relay))[0] == 429


async def test_a_request_in_flight_never_brings_an_old_plan_back(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    """Its body comes after the reload: it is admitted under the new plan's size."""
    upstream = await upstream_with(always(OK))
    octets = request("KEY")
    async with reloading(tmp_path, upstream=[row(upstream)], plan=LIMITED) as relay:
        octets = request(relay.live.key)
        async with connected(relay.live.port) as (reader, writer):
            writer.write(octets[:-10])
            await writer.drain()
            await asyncio.sleep(0.05)
            await relay.reload(plan=[{"id": "free", "limits": [{"requests": 9, "per": "5h"}]}])
            assert (await ask(relay))[1][b"x-ratelimit-remaining"] == b"8"
            writer.write(octets[-10:])
            _, fields, _ = await read_answer(reader)
            assert (fields[b"x-ratelimit-limit"], fields[b"x-ratelimit-remaining"]) == (b"9", b"7")
        assert (await ask(relay))[1][b"x-ratelimit-remaining"] == b"6"


async def test_a_wrong_file_changes_nothing(tmp_path: Path, upstream_with: UpstreamWith) -> None:
    upstream = await upstream_with(always(OK))
    async with reloading(tmp_path, upstream=[row(upstream)], plan=LIMITED) as relay:
        cases: list[tuple[dict[str, Any], str]] = [
            (
                {"plan": [{"id": "free", "limits": [{"requests": 0, "per": "5h"}]}]},
                "plan[0].limits",
            ),
            ({"plan": LIMITED, "pool": {"tries": 9}}, "pool.tries"),
            ({"pool": {}, "upstream": [row(upstream, api_key="env:NOT_SET")]}, "upstream[0]"),
        ]
        for sections, path in cases:
            with pytest.raises(ConfigError) as refused:
                await relay.reload(**sections)
            assert refused.value.path.startswith(path)
            status, fields = await ask(relay)
            assert (status, fields[b"x-ratelimit-limit"]) == (200, b"5")


async def test_a_rotated_secret_is_used_for_the_next_request(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    """relay.toml is the same: the file that it names has changed."""
    secret = tmp_path / "secret"
    secret.write_text("first-credential\n")
    upstream = await upstream_with(always(OK))
    rows = [row(upstream, api_key=f"file:{secret}")]
    async with reloading(tmp_path, upstream=rows) as relay:
        await ask(relay)
        secret.write_text("second-credential\n")
        report = await relay.reload()
        assert report.changed == ["upstream[main].api_key: has a new value"]
        await ask(relay)
        sent = [seen.fields[b"x-api-key"] for seen in upstream.requests]
        assert sent == [b"first-credential", b"second-credential"]
        assert upstream.connections == 1  # the connection is the same
        assert relay.live.app.upstreams[0].without_credential(b"first-credential") == "…".encode()


async def test_a_literal_secret_is_masked_in_what_is_reported(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    upstream = await upstream_with(always(OK))
    async with reloading(tmp_path, upstream=[row(upstream)]) as relay:
        report = await relay.reload(
            upstream=[row(upstream, api_key="another-credential", headers={"x-token": "secret-1"})]
        )
        assert report.changed == [
            "upstream[main].api_key: has a new value",
            'upstream[main].headers.x-token: null → "•••"',
        ]


async def test_an_unchanged_upstream_keeps_pool_and_health(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    upstream = await upstream_with(always(OK))
    async with reloading(tmp_path, upstream=[row(upstream)]) as relay:
        await ask(relay)
        before = relay.live.app.upstreams[0]
        before.health.pause()
        await relay.reload(pool={"wait": 0}, upstream=[row(upstream, weight=3), row(upstream, "b")])
        assert [one.name for one in relay.live.app.upstreams] == ["main", "b"]
        assert relay.live.app.upstreams[0] is before
        assert (before.weight, before.health.paused, before.requests) == (3, True, 1)
        assert relay.live.keeps_idle(1)
        assert (await ask(relay))[0] == 200  # by the new one


async def test_a_stream_from_a_removed_upstream_runs_to_its_end(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    go = asyncio.Event()
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    first = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"hi"}}\n\n'
    )
    last = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

    async def stream(_: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        writer.write(head + b"%x\r\n%b\r\n" % (len(first), first))
        await go.wait()
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last))

    old, new = await upstream_with(stream), await upstream_with(always(OK))
    async with (
        reloading(tmp_path, upstream=[row(old)]) as relay,
        connected(relay.live.port) as (reader, writer),
    ):
        writer.write(request(relay.live.key, {**BODY, "stream": True}))
        assert (await read_head(reader))[0] == 200
        report = await relay.reload(upstream=[row(new, "other")])
        assert report.changed == ["upstream[main]: removed", "upstream[other]: added"]
        assert (await ask(relay))[0] == 200
        assert len(new.requests) == 1
        go.set()
        assert (await reader.readuntil(b"0\r\n\r\n")).endswith(last + b"\r\n0\r\n\r\n")
        async with asyncio.timeout(2):
            await old.closed.wait()  # its connection is kept for nobody


async def test_what_needs_a_restart_is_named_and_stays(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    upstream = await upstream_with(always(OK))
    async with reloading(tmp_path, upstream=[row(upstream)]) as relay:
        for _ in range(2):
            report = await relay.reload(
                server={"listen": ["127.0.0.1:1"], "admin_listen": ""},
                database={"path": "other.db"},
            )
            assert report.changed == []
            assert [line.split(":")[0] for line in report.restart] == [
                "server.listen",
                "database.path",
            ]
        assert (await ask(relay))[0] == 200


async def test_models_and_bounds_follow_the_file(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    upstream = await upstream_with(always(OK))
    async with reloading(tmp_path, upstream=[row(upstream)]) as relay:
        server = {**relay.tree["server"], "limits": {"body": 64}, "timeouts": {"idle": 5}}
        await relay.reload(model=[{"id": "claude-opus-4-8"}], server=server)
        assert (await ask(relay))[0] == 413
        server["limits"] = {}
        await relay.reload(server=server)
        assert (await ask(relay))[0] == 404
        assert (await ask(relay, {**BODY, "model": "claude-opus-4-8"}))[0] == 200
        assert relay.live.app.server.bounds.idle_time == 5


async def test_the_access_log_starts_and_stops(tmp_path: Path, upstream_with: UpstreamWith) -> None:
    upstream = await upstream_with(always(OK))
    async with reloading(tmp_path, upstream=[row(upstream)], log={"access": False}) as relay:
        await ask(relay)
        await relay.reload(log={"access": True})
        await ask(relay)
        assert len(relay.live.log()) == 1
        await relay.reload(log={"access": False})
        assert relay.live.app.log is None


async def test_reloads_under_load_cost_no_request(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    a, b = await upstream_with(always(OK)), await upstream_with(always(OK))
    done: list[int] = []
    async with reloading(tmp_path, upstream=[row(a, "a")]) as relay:
        stop = asyncio.Event()

        async def client() -> None:
            async with connected(relay.live.port, wait=60) as (reader, writer):
                while not stop.is_set():
                    writer.write(request(relay.live.key))
                    done.append((await read_answer(reader))[0])

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(client())
            for number in range(9):
                names = (["a"], ["b"], ["a", "b"])[number % 3]
                rows = [row(a if name == "a" else b, name, weight=number + 1) for name in names]
                limits = [{"requests": 10_000_000 + number, "per": "5h"}]
                await relay.reload(upstream=rows, plan=[{"id": "free", "limits": limits}])
                await asyncio.sleep(0.03)
            stop.set()
    assert set(done) == {200}
    assert len(a.requests) + len(b.requests) == len(done)
    assert min(len(a.requests), len(b.requests)) > 0


async def test_traces_go_to_another_collector_or_to_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_export, "_INTERVAL_SECONDS", 0.01)
    with running_collector() as first, running_collector() as second:
        async with reloading(tmp_path, traces={"endpoint": first.url}) as relay:
            await get(relay.live.port)
            report = await relay.reload(traces={"endpoint": second.url})
            assert report.changed == [f'traces.endpoint: "{first.url}" → "{second.url}"']
            await until(lambda: len(first.spans) == 1)  # what waited there is still sent
            await get(relay.live.port)
            await until(lambda: len(second.spans) == 1)
            await relay.reload(traces={"endpoint": ""})
            await get(relay.live.port)
        assert (len(first.spans), len(second.spans)) == (1, 1)


async def get(port: int) -> None:
    async with connected(port) as (reader, writer):
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: relay\r\n\r\n")
        await read_answer(reader)
