"""The memory of a relay's process, with the pages never opened, and opened."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.durability.process import serving
from tests.web.test_storm import prepared
from tests.web.visitor import HTML

BASE_MIB, PAGES_MIB = 60, 100
PAGES = ("/", "/login", "/signup", "/forgot", "/login", "/static/nothing")


@pytest.mark.alone
async def test_pages_take_memory_once_they_are_opened(tmp_path: Path, record_property: Any) -> None:
    with serving(tmp_path, ("simulate", "--port", "0")) as simulator:
        key = prepared(tmp_path, f"http://127.0.0.1:{simulator.port}")
        with serving(tmp_path) as running:
            process = psutil.Process(running.process.pid)

            def mib() -> float:
                return float(process.memory_info().rss) / 2**20

            started = mib()
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}") as client:
                body = {"model": "claude-sonnet-4-7", "max_tokens": 20, "messages": []}
                body["messages"] = [{"role": "user", "content": "hi"}]
                headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
                for stream in (False, True):
                    for path in ("/v1/messages", "/v1/chat/completions", "/v1/responses"):
                        asked = {**body, "stream": stream}
                        if path.endswith("responses"):
                            asked = {"model": body["model"], "input": "hi", "stream": stream}
                        answer = await client.post(path, json=asked, headers=headers)
                        assert answer.status_code == 200, answer.text
                base = mib()
                for path in PAGES * 5:
                    await client.get(path, headers=HTML)
            await asyncio.sleep(0.5)
            opened = mib()
    figure = f"{started:.1f} MiB; {base:.1f} with requests; {opened:.1f} with pages"
    print(figure)
    record_property("figure", figure)
    assert base <= BASE_MIB
    assert opened <= PAGES_MIB
