"""The Node SDK works with the relay as with the API."""

import json
from pathlib import Path

import pytest

from tests.clients.programs import run
from tests.fakes.live import Live

pytestmark = pytest.mark.node


async def test_the_node_sdk_completes_streams_counts_and_raises(
    live: Live, node_modules: Path
) -> None:
    script = Path(__file__).with_name("sdk.mjs")
    ended = await run("node", script, live.url, live.key, cwd=node_modules.parent, env={})
    assert ended.status == 0, ended.err
    report = json.loads(ended.out)
    assert "Hello from Node" in report["whole"]
    assert report["whole"] == report["streamed"] == report["final"]
    assert report["pieces"] > 5
    assert report["used"][0] == report["used"][1]
    assert report["counted"] == report["used"][0][0]
    assert report["models"] == ["claude-opus-4-8", "claude-sonnet-4-7", "claude-haiku-4-5"]
    assert report["cut"] != "no error"
    assert report["refused"] == "NotFoundError 404 not_found_error"
