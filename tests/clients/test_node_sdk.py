"""The Node SDK takes the relay for the API itself."""

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
    told = json.loads(ended.out)
    assert "Hello from Node" in told["whole"]
    assert told["whole"] == told["streamed"] == told["final"]
    assert told["pieces"] > 5
    assert told["used"][0] == told["used"][1]
    assert told["counted"] == told["used"][0][0]
    assert told["models"] == ["claude-opus-4-8", "claude-sonnet-4-7", "claude-haiku-4-5"]
    assert told["cut"] != "no error"
    assert told["refused"] == "NotFoundError 404 not_found_error"
