"""OpenAI's Node SDK takes the relay for the API itself."""

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
    told = json.loads(ended.out)
    assert "Hello from Node" in told["whole"]
    assert told["whole"] == told["streamed"] == told["final"]
    assert told["pieces"] > 5
    assert told["used"][0] == told["used"][1]
    whole, streamed = told["called"]
    assert whole["turns"] == [["tool_calls", True], ["stop", True]] * 2
    # Its stream helper keeps the last piece alone of what it does not know: such a thought
    # cannot be sent back, and the conversation goes on without.
    assert streamed["turns"] == [["tool_calls", True], ["stop", False]] * 2
    assert whole["said"] == streamed["said"] == "Done. The tool answered: rain 4"
    assert set(told["parsed"]) == {"name", "age"}
    assert told["models"] == ["claude-opus-4-8", "claude-sonnet-4-7", "claude-haiku-4-5"]
    assert told["refused"] == [True, 404, "model_not_found"]
    assert told["cut"][0] is True
