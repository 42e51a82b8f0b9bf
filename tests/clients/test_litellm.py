"""LiteLLM takes the relay for OpenAI's API, with the dialect that most programs have it speak."""

import json
from pathlib import Path

import pytest

from tests.clients.programs import run
from tests.fakes.live import Live

pytestmark = pytest.mark.litellm

QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}


async def test_litellm_completes_streams_calls_tools_and_raises(
    live: Live, litellm_python: Path, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("litellm") / "talk.py"
    ended = await run(
        litellm_python, "-I", script, live.url, live.key, cwd=tmp_path, env=QUIET, wait=90
    )
    assert ended.status == 0, ended.err
    told = json.loads(ended.out.splitlines()[-1])
    assert "Hello from LiteLLM" in told["whole"]
    assert told["whole"] == told["streamed"]
    assert told["pieces"] > 5
    assert told["used"][0] == told["used"][1]
    assert told["turns"]["ended"] == ["tool_calls", "stop"] * 2
    assert all(told["turns"]["reasoned"])
    assert told["turns"]["said"] == "Done. The tool answered: rain 4"
    assert told["shaped"].keys() == {"name", "people"}
    assert told["refused"][:2] == ["NotFoundError", 404]
    assert "claude-haiku-4-5" in told["refused"][2]
    assert told["key"][:2] == ["AuthenticationError", 401]
    assert "broke off" in told["cut"][-1]
    assert told["outside"] == []
