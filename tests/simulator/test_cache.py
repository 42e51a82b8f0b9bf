"""The prompt cache accounts for every token of a prompt once."""

from relay.simulator import cache
from relay.simulator.cache import PromptCache

from . import samples
from .answers import compose, follow
from .samples import BASH, JSON, WRITE, plain


def breakpoint_(text: str) -> JSON:
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}


def test_a_prompt_is_written_once_and_read_afterwards() -> None:
    prompts = PromptCache()
    request = plain(system=[breakpoint_("s" * 4000)])
    first, second = prompts.account(request), prompts.account(request)
    assert (first.written_5m, first.read) == (1000, 0)
    assert (second.written_5m, second.read) == (0, 1000)
    assert first.uncached == second.uncached > 0


def test_the_parts_of_a_prompt_add_up_to_its_count() -> None:
    prompts = PromptCache()
    request = samples.claude_code()
    for _ in range(2):
        prompt = prompts.account(request)
        parts = prompt.uncached + prompt.written_5m + prompt.written_1h + prompt.read
        assert parts == cache.count(request)


def test_a_growing_conversation_reads_the_last_turns_prefix() -> None:
    prompts = PromptCache()
    request = samples.claude_code()
    first = prompts.account(request)
    grown = follow(request, compose(request))
    # As in Claude Code: the system message becomes a string, its breakpoint moves to the end.
    grown["messages"][1] = {
        "role": "system",
        "content": request["messages"][1]["content"][0]["text"],
    }
    grown["messages"][-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
    second = prompts.account(grown)
    assert second.read == first.written_5m
    assert second.written_5m > 0


def test_a_changed_tool_invalidates_the_cache() -> None:
    prompts = PromptCache()
    request = samples.claude_code()
    prompts.account(request)
    changed = request | {"tools": [WRITE, BASH]}
    assert prompts.account(changed).read == 0


def test_writes_for_an_hour_are_counted_apart() -> None:
    block = {**breakpoint_("s" * 400), "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    prompt = PromptCache().account(plain(system=[block]))
    assert (prompt.written_5m, prompt.written_1h) == (0, 100)


def test_the_cache_is_bounded() -> None:
    prompts = PromptCache(limit=3)
    for number in range(10):
        prompts.account(plain(system=[breakpoint_(f"{number}" * 40)]))
    assert repr(prompts) == "<PromptCache 3/3>"
    assert prompts.account(plain(system=[breakpoint_("0" * 40)])).read == 0
    assert prompts.account(plain(system=[breakpoint_("9" * 40)])).read == 10
