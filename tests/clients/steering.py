"""A greeting for the Messages API, and scripts that steer the simulated upstream."""

from typing import Any

import httpx

from tests.clients.conftest import TRUST
from tests.fakes.live import Live

MODEL = "claude-sonnet-4-7"
HI: Any = [{"role": "user", "content": "Hello there"}]


def steered(script: str) -> dict[str, str]:
    """The field that scripts the simulated upstream."""
    return {"x-simulate": script}


async def put_script(live: Live, *scripts: str) -> None:
    """Script the upstream's next answers, for a client that sends no `x-simulate`."""
    url = live.upstream_url
    async with httpx.AsyncClient(verify=TRUST) as client:
        answer = await client.put(f"{url}/simulate/script", json=list(scripts))
    answer.raise_for_status()


def upstream_requests(live: Live) -> list[dict[str, Any]]:
    """The requests that the simulated upstream received, heads as dicts."""
    assert live.simulator is not None
    return [
        {**request, "headers": dict(request["headers"])}
        for request in live.simulator.journal.report()["requests"]
        if request["target"].startswith("/v1/messages")
    ]


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")
