"""Requests a stream through Anthropic's SDK, which takes a second to import."""

import anthropic

from tests.fakes.caller import BODY
from tests.fakes.live import Live


async def message_by_sdk(relay: Live) -> anthropic.types.Message:
    """The message that the SDK assembles from a stream."""
    async with (
        anthropic.AsyncAnthropic(
            api_key=relay.key, base_url=relay.url, max_retries=0, timeout=10
        ) as client,
        client.messages.stream(
            model=BODY["model"], max_tokens=100, messages=BODY["messages"]
        ) as stream,
    ):
        return await stream.get_final_message()
