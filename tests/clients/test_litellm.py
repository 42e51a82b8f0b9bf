"""LiteLLM works with the relay as with OpenAI's API, in chat completions."""

import json
from pathlib import Path

import pytest

from tests.clients.programs import run
from tests.fakes.live import Live

pytestmark = [pytest.mark.litellm, pytest.mark.clients]

QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}


async def test_litellm_completes_streams_calls_tools_and_raises(
    live: Live, litellm_python: Path, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("litellm") / "talk.py"
    ended = await run(
        litellm_python, "-I", script, live.url, live.key, cwd=tmp_path, env=QUIET, wait=90
    )
    assert ended.status == 0, ended.err
    report = json.loads(ended.out.splitlines()[-1])
    assert "Hello from LiteLLM" in report["whole"]
    assert report["whole"] == report["streamed"]
    assert report["pieces"] > 5
    assert report["used"][0] == report["used"][1]
    assert report["turns"]["ended"] == ["tool_calls", "stop"] * 2
    assert all(report["turns"]["reasoned"])
    assert report["turns"]["said"] == "Done. The tool answered: rain 4"
    assert report["shaped"].keys() == {"name", "people"}
    assert report["refused"][:2] == ["NotFoundError", 404]
    assert "claude-haiku-4-5" in report["refused"][2]
    assert report["key"][:2] == ["AuthenticationError", 401]
    assert "broke off" in report["cut"][-1]
    assert report["outside"] == []
