"""Real processes: whichever accepts a connection, its caller gets the same answers."""

import asyncio
import contextlib
import json
import os
import re
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.durability.process import Running, serving
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live
from tests.fakes.until import until
from tests.web.visitor import Visitor
from tests.workers.processes import workers_of

CONNECTIONS = 40  # so that each of three processes accepts some
STORES = {
    "memory": '[responses]\nstore = "memory"\n',
    "database": f'[responses]\nstore = "database"\nkey = "{"k" * 32}"\n',
}


async def answer_to(
    running: Running, key: str | None, target: str, method: str = "GET", body: bytes = b""
) -> tuple[int, dict[bytes, bytes], bytes]:
    """The answer on a connection of its own."""
    async with connected(running.port) as (reader, writer):
        writer.write(request(key, body, target=target, method=method))
        return await read_answer(reader)


async def test_every_process_answers_every_path(several: tuple[Path, str]) -> None:
    folder, key = several
    ids: list[bytes] = []
    with serving(folder) as running:
        for target, expected in (("/v1/usage", 200), ("/docs", 200), ("/nothing", 404)):
            answers = await asyncio.gather(
                *[answer_to(running, key, target) for _ in range(CONNECTIONS)]
            )
            assert Counter(status for status, _, _ in answers) == {expected: CONNECTIONS}
            if expected == 200:
                assert len({re.sub(rb"[0-9]+", b"", body) for _, _, body in answers}) == 1
            ids += [fields[b"request-id"] for _, fields, _ in answers]
        running.signal()
        assert await running.exited(20) == 0
        lines = running.log()
    logged = Counter(line["id"].encode() for line in lines)
    assert {logged[id] for id in ids} == {1}
    assert {line["peer"] for line in lines} == {"127.0.0.1"}
    assert not list(folder.glob("relay.db.workers*"))


@pytest.mark.parametrize("store", STORES)
async def test_a_conversation_goes_on_in_any_process(several: tuple[Path, str], store: str) -> None:
    folder, key = several
    settings = folder / "relay.toml"
    settings.write_text(settings.read_text() + STORES[store])
    with serving(folder) as running:

        async def converse() -> list[str]:
            ids: list[str] = []
            for _ in range(8):
                body: dict[str, Any] = {"model": "claude-sonnet-4-7", "input": "hi"}
                if ids:
                    body["previous_response_id"] = ids[-1]
                octets = json.dumps(body).encode()
                status, _, answer = await answer_to(running, key, "/v1/responses", "POST", octets)
                assert status == 200, answer
                ids.append(json.loads(answer)["id"])
            return ids

        chains = await asyncio.gather(*[converse() for _ in range(6)])
        for id in chains[0]:
            status, _, answer = await answer_to(running, key, f"/v1/responses/{id}")
            assert (status, json.loads(answer)["id"]) == (200, id)
        gone = chains[0][3]
        status, _, _ = await answer_to(running, key, f"/v1/responses/{gone}", "DELETE")
        assert status == 200
        body = {"model": "claude-sonnet-4-7", "input": "hi", "previous_response_id": chains[0][-1]}
        for _ in range(10):
            octets = json.dumps(body).encode()
            status, _, _ = await answer_to(running, key, "/v1/responses", "POST", octets)
            assert status == 400


async def test_a_new_key_works_at_once_in_every_process(several: tuple[Path, str]) -> None:
    folder, _ = several
    settings = folder / "relay.toml"
    settings.write_text(settings.read_text() + '[web]\nsign_up = "open"\nsign_up_work = 8\n')
    with serving(folder) as running:
        site = cast(Live, SimpleNamespace(url=f"http://127.0.0.1:{running.port}"))
        async with Visitor(site) as visitor:
            await visitor.sign_up()
            for number in range(4):
                key = await visitor.new_key(f"key {number}")
                answers = [await answer_to(running, key, "/v1/models") for _ in range(12)]
                assert {status for status, _, _ in answers} == {200}


async def test_open_pages_delay_no_end(several: tuple[Path, str]) -> None:
    folder, _ = several
    settings = folder / "relay.toml"
    settings.write_text(settings.read_text() + '[web]\nsign_up = "open"\nsign_up_work = 8\n')
    with serving(folder) as running:
        site = cast(Live, SimpleNamespace(url=f"http://127.0.0.1:{running.port}"))
        async with Visitor(site) as visitor, contextlib.AsyncExitStack() as stack:
            await visitor.sign_up()
            streams = []
            for _ in range(5):  # a connection each
                opened = visitor.stream("GET", "/dashboard/live")
                streams.append((await stack.enter_async_context(opened)).aiter_lines())
                assert await anext(streams[-1]) == "retry: 5000"
            started = time.monotonic()
            running.signal()
            for lines in streams:
                async with asyncio.timeout(15):
                    assert [line async for line in lines]  # ended, not cut
        assert await running.exited(20) == 0
        assert time.monotonic() - started < 15  # half of the time that requests get


async def test_a_worker_that_starts_anew_reaches_the_owner(several: tuple[Path, str]) -> None:
    folder, key = several
    with serving(folder) as running:
        before = workers_of(running)
        for pid in before:
            os.kill(pid, 9)
        await until(
            lambda: len(workers_of(running)) == 2 and not set(workers_of(running)) & set(before)
        )
        answers = await asyncio.gather(
            *[answer_to(running, key, "/v1/usage") for _ in range(CONNECTIONS)]
        )
        assert {status for status, _, _ in answers} == {200}
