"""OpenAI's Node SDK works with the relay as with the API."""

import json
from pathlib import Path

import pytest

from tests.clients.programs import run
from tests.fakes.live import Live

pytestmark = pytest.mark.node


async def test_openais_node_sdk_completes_streams_parses_and_raises(
    live: Live, node_modules: Path
) -> None:
    script = Path(__file__).with_name("openai.mjs")
    ended = await run("node", script, live.url, live.key, cwd=node_modules.parent, env={})
    assert ended.status == 0, ended.err
    report = json.loads(ended.out)
    assert "Hello from Node" in report["whole"]
    assert report["whole"] == report["streamed"] == report["final"]
    assert report["pieces"] > 5
    assert report["used"][0] == report["used"][1]
    document, streamed = report["called"]
    assert document["turns"] == [["tool_calls", True], ["stop", True]] * 2
    # Its stream helper keeps only the last piece of unknown fields: such reasoning cannot be
    # sent back, and the conversation continues without it.
    assert streamed["turns"] == [["tool_calls", True], ["stop", False]] * 2
    assert document["said"] == streamed["said"] == "Done. The tool answered: rain 4"
    assert set(report["parsed"]) == {"name", "age"}
    assert report["models"] == ["claude-opus-4-8", "claude-sonnet-4-7", "claude-haiku-4-5"]
    assert report["refused"] == [True, 404, "model_not_found"]
    assert report["cut"][0] is True
