"""A web search has the blocks of the real API: the search, its results, a text that cites them."""

from typing import Any

import anthropic
import orjson
import pytest
from pydantic import TypeAdapter

from relay.simulator import answer, events, strict
from relay.simulator.answer import Answer
from relay.simulator.cache import Prompt
from relay.simulator.refusal import Refusal
from relay.simulator.script import NORMAL
from relay.simulator.seal import Seal

from .conftest import TRUST, Running
from .samples import JSON, WEATHER, claude_code_search, plain

SEAL = Seal("test")
SEARCH: JSON = {"type": "web_search_20250305", "name": "web_search"}
KINDS = ["text", "server_tool_use", "web_search_tool_result", "text", "text", "text"]
BLOCKS: TypeAdapter[Any] = TypeAdapter(list[anthropic.types.ContentBlock])


def compose(request: JSON) -> Answer:
    strict.check(request, frozenset(), SEAL)
    return answer.compose(request, NORMAL, SEAL, "0123456789abcdef012345")


def test_a_search_is_run_and_cited() -> None:
    request = plain("Please search for the weather in Paris.", tools=[WEATHER, SEARCH])
    composed = compose(request)
    assert [block["type"] for block in composed.blocks] == KINDS
    BLOCKS.validate_python(composed.blocks, strict=True)
    _, use, found, _, cited, _ = composed.blocks
    assert use["input"] == {"query": "the weather in Paris"}
    assert use["id"] == found["tool_use_id"]
    assert [page["url"] for page in found["content"]] == [it["url"] for it in cited["citations"]]
    assert (composed.stop_reason, composed.searches) == ("end_turn", 1)
    usage = orjson.loads(events.message("m", "n", composed, Prompt(1), request))["usage"]
    assert usage["server_tool_use"] == {"web_search_requests": 1, "web_fetch_requests": 0}


def test_the_blocks_of_a_search_are_accepted_in_the_next_turn() -> None:
    request = plain("search for tea", tools=[SEARCH])
    turns = [{"role": "assistant", "content": compose(request).blocks}, *plain("And?")["messages"]]
    again = compose(request | {"messages": request["messages"] + turns})
    assert [block["type"] for block in again.blocks] == ["text"]


def test_a_forced_search_takes_any_text_as_its_query() -> None:
    use = compose(claude_code_search()).blocks[1]
    assert use["input"] == {"query": "search the web"}
    anything = plain("tea", tools=[SEARCH], tool_choice={"type": "any"})
    assert compose(anything).blocks[1]["input"] == {"query": "tea"}


@pytest.mark.parametrize(
    "request_",
    [
        plain("search for tea"),
        plain("search for tea", tools=[WEATHER]),
        plain("search for tea", tools=[SEARCH], tool_choice={"type": "none"}),
        plain("what is tea?", tools=[SEARCH]),
        plain("write tea to a.txt", tools=[SEARCH]),
        plain(
            "search for tea",
            tools=[WEATHER, SEARCH],
            tool_choice={"type": "tool", "name": "get_weather"},
        ),
    ],
)
def test_no_other_request_leads_to_a_search(request_: JSON) -> None:
    assert {block["type"] for block in compose(request_).blocks} <= {"text", "tool_use"}


def test_pages_come_from_the_allowed_domains() -> None:
    tool = SEARCH | {"allowed_domains": ["tea.example"]}
    found = compose(plain("search for tea", tools=[tool])).blocks[2]
    assert all(page["url"].startswith("https://tea.example/") for page in found["content"])


PARIS = {"type": "approximate", "city": "Paris", "country": "FR", "region": None}


def test_a_definition_with_every_setting_is_accepted() -> None:
    tool = SEARCH | {"max_uses": 3, "user_location": PARIS, "blocked_domains": ["x.example"]}
    compose(plain(tools=[tool]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name": "search"}, "name: Input should be 'web_search'"),
        ({"search_context_size": "low"}, "search_context_size: Extra inputs are not permitted"),
        ({"max_uses": 0}, "max_uses: Input should be greater than 0"),
        ({"allowed_domains": ["a"], "blocked_domains": ["b"]}, "Cannot specify both"),
        ({"allowed_domains": "a"}, "allowed_domains: Input should be a valid list"),
        ({"user_location": {"type": "exact"}}, "type: Input should be 'approximate'"),
        (
            {"user_location": {"type": "approximate", "approximate": PARIS}},
            "user_location.approximate: Extra inputs are not permitted",
        ),
    ],
)
def test_a_definition_is_refused_as_by_the_real_api(more: JSON, message: str) -> None:
    with pytest.raises(Refusal) as caught:
        compose(plain(tools=[SEARCH | more]))
    assert caught.value.message.startswith("tools.0.web_search_20250305")
    assert message in caught.value.message


async def test_the_sdk_assembles_the_stream(upstream: Running) -> None:
    tools: Any = [SEARCH]
    request: Any = plain("search for tea", tools=tools)
    async with anthropic.AsyncAnthropic(
        api_key="sim-key",
        base_url=upstream.url,
        max_retries=0,
        http_client=anthropic.DefaultAsyncHttpxClient(verify=TRUST),
    ) as sdk:
        async with sdk.messages.stream(**request) as stream:
            kinds = {event.type async for event in stream}
            message = await stream.get_final_message()
        created = await sdk.messages.create(**request)
    assert "citation" in kinds
    assert [block.type for block in message.content] == KINDS
    cited = message.content[4]
    assert cited.type == "text"
    assert [citation.type for citation in cited.citations or ()] == [
        "web_search_result_location"
    ] * 2
    text = created.content[4]
    assert text.type == "text"
    assert cited.text == text.text
    assert cited.citations == text.citations
    assert message.usage.server_tool_use == created.usage.server_tool_use
