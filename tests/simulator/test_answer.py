"""What the simulated model says, how it is cut into events, and what it costs."""

from typing import Any

import orjson
import pytest
from anthropic.types import RefusalStopDetails

from relay.simulator import answer, cache, events, strict, toolcall
from relay.simulator.answer import Answer
from relay.simulator.cache import Prompt, PromptCache
from relay.simulator.refusal import Refusal
from relay.simulator.script import FAULTS, NORMAL, parse
from relay.simulator.seal import Seal

from . import samples
from .samples import BASH, CLAUDE_CODE_BETAS, JSON, WEATHER, WRITE, plain

SEAL = Seal("test")


def compose(request: JSON, script: str = "", number: str = "0123456789abcdef012345") -> Answer:
    return answer.compose(request, parse(script) if script else NORMAL, SEAL, number)


def follow(request: JSON, said: Answer, **result: Any) -> JSON:
    """The next request of an agent that ran the tools it was told to run."""
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "it went well", **result}
        for block in said.blocks
        if block["type"] == "tool_use"
    ]
    messages = [
        *request["messages"],
        {"role": "assistant", "content": said.blocks},
        {"role": "user", "content": results},
    ]
    return request | {"messages": messages}


def only_text(said: Answer) -> str:
    (block,) = said.blocks
    assert block["type"] == "text"
    return str(block["text"])


def test_the_same_request_gets_the_same_answer() -> None:
    assert compose(samples.claude_code()) == compose(samples.claude_code())


def test_a_plain_answer_repeats_the_user_and_ends_the_turn() -> None:
    said = compose(plain("Grüße  aus\n東京 🙂"))
    assert "“Grüße aus 東京 🙂”" in only_text(said)
    assert said.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("words", "path", "content"),
    [
        ("write hello to out.txt", "out.txt", "hello"),
        ('Write "two words" into a new file called `notes/day-1.md`.', "notes/day-1.md", None),
        ("create the file hello.py with print(1)", "hello.py", "print(1)"),
        ("Create a file named /tmp/x/y.txt containing the text 'abc'.", "/tmp/x/y.txt", "abc"),
        ("make a new file called proof.txt", "proof.txt", "hello"),
        ("Write the word banana to ./fruit.txt please", "./fruit.txt", "the word banana"),
    ],
)
def test_a_wish_for_a_file_is_understood(words: str, path: str | None, content: str | None) -> None:
    found = toolcall.requested_file(words)
    if path is not None:
        assert found is not None
        assert found.path == path
    if content is not None:
        assert found is not None
        assert found.content == content


@pytest.mark.parametrize("words", ["hello", "what is in out.txt?", "Say hi to everyone"])
def test_other_wishes_are_none_for_a_file(words: str) -> None:
    assert toolcall.requested_file(words) is None


def test_claude_code_is_told_to_write_the_file_and_then_that_it_is_done() -> None:
    request = samples.claude_code("write hello to out.txt")
    first = compose(request)
    thinking, call = first.blocks
    assert thinking["type"] == "thinking"
    assert call["name"] == "Write"
    assert call["input"] == {"file_path": "/tmp/project/out.txt", "content": "hello"}
    assert first.stop_reason == "tool_use"
    second_request = follow(request, first)
    strict.check(second_request, strict.betas(CLAUDE_CODE_BETAS), SEAL)
    second = compose(second_request)
    assert second.blocks[-1]["text"] == "Done. The tool answered: it went well"
    assert second.stop_reason == "end_turn"


def test_a_failed_tool_is_told_as_failed() -> None:
    request = samples.claude_code()
    said = compose(follow(request, compose(request), is_error=True, content="no such folder"))
    assert said.blocks[-1]["text"] == "The tool failed: no such folder"


def test_without_a_tool_for_files_a_shell_writes_it() -> None:
    said = compose(plain("write it's me to a.txt", tools=[WEATHER, BASH]))
    assert said.blocks[0]["input"] == {"command": "printf '%s\\n' 'it'\"'\"'s me' > a.txt"}


def test_any_other_tool_gets_arguments_that_fit_its_schema() -> None:
    said = compose(plain(tools=[WEATHER], tool_choice={"type": "any"}))
    assert said.blocks[0]["input"] == {"city": "simulated city", "unit": "celsius", "days": 2}


def test_a_tool_that_the_user_names_is_called() -> None:
    said = compose(plain("Please use get_weather for Paris", tools=[WRITE, WEATHER]))
    assert said.blocks[0]["name"] == "get_weather"


def test_codex_is_told_to_write_the_file_in_its_shell_and_then_that_it_is_done() -> None:
    request = samples.codex("write hello world to proof.txt")
    first = compose(request)
    call = first.blocks[-1]
    assert (call["name"], first.stop_reason) == ("exec_command", "tool_use")
    assert call["input"] == {"cmd": "printf '%s\\n' 'hello world' > proof.txt"}
    second_request = follow(request, first)
    strict.check(second_request, frozenset(), SEAL)
    assert compose(second_request).stop_reason == "end_turn"


@pytest.mark.parametrize(
    "words",
    ["write hello world to proof.txt with a patch", "apply_patch: write hello world to proof.txt"],
)
def test_asked_for_a_patch_it_writes_the_file_with_one(words: str) -> None:
    call = compose(samples.codex(words)).blocks[-1]
    assert call["name"] == "apply_patch"
    assert call["input"] == {
        "input": "*** Begin Patch\n*** Add File: proof.txt\n+hello world\n*** End Patch"
    }


def test_without_a_tool_for_patches_the_word_means_nothing() -> None:
    request = samples.codex("write hello to a.txt with a patch", tools=[samples.EXEC_COMMAND])
    assert compose(request).blocks[-1]["name"] == "exec_command"


def test_a_tool_for_patches_gets_one_whoever_calls_for_it() -> None:
    call = compose(samples.codex("use the tool apply_patch")).blocks[-1]
    assert call["name"] == "apply_patch"
    assert call["input"]["input"].startswith("*** Begin Patch\n*** Add File: ")


def test_a_patch_in_parts_is_the_new_file() -> None:
    schema = {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
            "path": {"type": "string"},
            "diff": {"type": "string"},
        },
        "required": ["type", "path"],
    }
    tools = [{"name": "apply_patch", "input_schema": schema}]
    call = compose(samples.codex("write hi to a.txt as a patch", tools=tools)).blocks[-1]
    assert call["input"] == {"type": "create_file", "path": "a.txt", "diff": "+hi\n"}


def test_a_tool_in_a_group_is_called_by_its_own_name_and_by_its_whole_one() -> None:
    for name in ("close_agent", "multi_agent_v1__close_agent"):
        call = compose(samples.codex(f"use the tool {name}")).blocks[-1]
        assert call["name"] == "multi_agent_v1__close_agent"
        assert call["input"] == {"target": "simulated target"}


@pytest.mark.parametrize(
    ("tool", "member", "value"),
    [
        ("shell", "commands", ["printf '%s\\n' hi > a.txt"]),
        ("local_shell", "command", ["bash", "-c", "printf '%s\\n' hi > a.txt"]),
    ],
)
def test_a_shell_that_takes_a_list_gets_one(tool: str, member: str, value: list[str]) -> None:
    schema = {
        "type": "object",
        "properties": {member: {"type": "array", "items": {"type": "string"}}},
        "required": [member],
    }
    tools = [{"name": tool, "input_schema": schema}]
    assert compose(plain("write hi to a.txt", tools=tools)).blocks[0]["input"] == {member: value}


def test_no_tool_is_called_against_the_wish_of_the_request() -> None:
    request = plain("write a to b.txt", tools=[WRITE], tool_choice={"type": "none"})
    assert compose(request).stop_reason == "end_turn"
    assert compose(plain("hello", tools=[WRITE])).stop_reason == "end_turn"


def test_parallel_calls_have_ids_of_their_own() -> None:
    request = plain(tools=[WEATHER])
    said = compose(request, "tool=get_weather;tools=3")
    ids = [block["id"] for block in said.blocks]
    assert len(set(ids)) == 3
    strict.check(follow(request, said), frozenset(), SEAL)


def test_parallel_calls_are_not_made_against_the_wish_of_the_request() -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    said = compose(plain(tools=[WEATHER], tool_choice=choice), "tools=3")
    assert len(said.blocks) == 1


def test_a_scripted_tool_is_called_once_and_its_result_is_answered_in_words() -> None:
    request = plain(tools=[WEATHER])
    first = compose(request, "tool=get_weather")
    assert compose(follow(request, first), "tool=get_weather").stop_reason == "end_turn"


def test_thinking_is_signed_and_taken_back() -> None:
    request = plain(thinking={"type": "adaptive"})
    said = compose(request)
    block = said.blocks[0]
    assert block["thinking"]
    assert SEAL.verify(block["thinking"], block["signature"])
    assert not SEAL.verify(block["thinking"] + " ", block["signature"])


def test_omitted_thinking_shows_nothing_and_is_signed_all_the_same() -> None:
    said = compose(plain(thinking={"type": "adaptive", "display": "omitted"}))
    block = said.blocks[0]
    assert block["thinking"] == ""
    assert SEAL.verify("", block["signature"])
    assert not SEAL.verify("something", block["signature"])


@pytest.mark.parametrize(
    ("model", "display", "shown"),
    [
        ("claude-sonnet-4-6", None, True),
        ("claude-opus-4-6", None, True),
        ("claude-opus-4-7", None, False),
        ("claude-opus-5-5", None, False),
        ("claude-sonnet-5", None, False),
        ("MiniMax-M2", None, True),
        ("claude-opus-4-7", "summarized", True),
        ("claude-opus-4-6", "omitted", False),
    ],
)
def test_a_model_shows_its_thinking_as_asked_or_as_it_does(
    model: str, display: str | None, shown: bool
) -> None:
    thinking = {"type": "adaptive"} | ({"display": display} if display else {})
    request = plain(model=model, thinking=thinking)
    said = compose(request)
    assert bool(said.blocks[0]["thinking"]) is shown
    deltas = sum(
        b'"thinking_delta"' in event for event in events.stream("m", "n", said, Prompt(1), request)
    )
    assert deltas > 3 if shown else deltas == 0


@pytest.mark.parametrize("reason", ["max_tokens", "pause_turn", "model_context_window_exceeded"])
def test_a_script_tells_why_the_answer_stops(reason: str) -> None:
    said = compose(plain(), f"tokens=3;stop={reason}")
    assert (said.stop_reason, said.output_tokens, said.stop_details) == (reason, 3, None)


@pytest.mark.parametrize("tokens", [None, 5])
def test_a_refusal_says_why_and_only_the_words_that_it_was_scripted(tokens: int | None) -> None:
    said = compose(plain(), "stop=refusal" + (f";tokens={tokens}" if tokens else ""))
    assert (said.stop_reason, said.output_tokens) == ("refusal", tokens or 0)
    assert len(said.blocks) == (tokens is not None)
    assert said.stop_details is not None
    RefusalStopDetails.model_validate(said.stop_details, strict=True)


def test_signatures_outlive_a_restart_with_the_same_seed() -> None:
    signature = Seal("a").sign("x", "x")
    assert Seal("a").verify("x", signature)
    assert not Seal("b").verify("x", signature)


def test_a_structured_answer_fits_its_schema() -> None:
    title = orjson.loads(only_text(compose(samples.claude_code_title())))
    assert title == {"title": "simulated title"}


def test_max_tokens_cuts_the_answer() -> None:
    said = compose(plain(max_tokens=3))
    assert only_text(said) == "This is the"
    assert (said.stop_reason, said.output_tokens) == ("max_tokens", 3)


def test_no_tokens_at_all_make_an_empty_answer() -> None:
    said = compose(plain(max_tokens=0))
    assert (said.blocks, said.stop_reason) == ([], "max_tokens")


def test_a_stop_sequence_ends_the_answer_before_it() -> None:
    said = compose(plain(stop_sequences=["upstream", "the"]))
    assert only_text(said) == "This is "
    assert (said.stop_reason, said.stop_sequence) == ("stop_sequence", "the")


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_a_script_tells_the_length_in_tokens(count: int) -> None:
    said = compose(plain(max_tokens=1), f"tokens={count}")
    stream = events.stream("m", "n", said, Prompt(1), plain())
    assert said.output_tokens == count
    assert sum(b'"text_delta"' in event for event in stream) == count


@pytest.mark.parametrize("size", [1, 100, 12345])
def test_a_script_tells_the_size_in_bytes(size: int) -> None:
    assert len(only_text(compose(plain(), f"bytes={size}")).encode()) == size


def test_another_seed_says_other_words() -> None:
    one, other = (compose(plain(), f"tokens=9;seed={seed}") for seed in "ab")
    assert only_text(one) != only_text(other)


ANSWERS = {
    "text": (plain(), ""),
    "unicode": (plain("日本語 🙂 ünïcödé"), ""),
    "tools": (plain(tools=[WEATHER]), "tool=get_weather;tools=2"),
    "thinking and a tool": (samples.claude_code() | {"thinking": {"type": "adaptive"}}, ""),
    "thinking omitted": (samples.claude_code(), ""),
    "tokens": (plain(), "tokens=40"),
    "bytes": (plain(), "bytes=5000"),
    "nothing": (plain(max_tokens=0), ""),
    "a search": (
        plain("search for tea", tools=[{"type": "web_search_20250305", "name": "web_search"}]),
        "",
    ),
    "a refusal": (plain(), "stop=refusal"),
    "a refusal midway": (plain(), "stop=refusal;tokens=5"),
    "a pause": (plain(), "stop=pause_turn"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_events_of_a_stream_add_up_to_the_whole_message(name: str) -> None:
    request, script = ANSWERS[name]
    said = compose(request, script)
    prompt = Prompt(10, 20, 30, 40)
    whole = orjson.loads(events.message("m", "n", said, prompt, request))
    assert added_up(events.stream("m", "n", said, prompt, request)) == whole


def added_up(stream: list[bytes]) -> JSON:
    """What a client makes of the events."""
    message: JSON = {}
    inputs: dict[int, str] = {}
    names = []
    for event in stream:
        first, second, end = event.split(b"\n", 2)
        assert end == b"\n"
        name = first.removeprefix(b"event: ").decode()
        data = orjson.loads(second.removeprefix(b"data: "))
        assert data["type"] == name
        names.append(name)
        match name:
            case "message_start":
                message = data["message"]
            case "content_block_start":
                assert data["index"] == len(message["content"])
                message["content"].append(data["content_block"])
            case "content_block_delta":
                block = message["content"][data["index"]]
                delta = data["delta"]
                match delta.pop("type"):
                    case "input_json_delta":
                        inputs.setdefault(data["index"], "")
                        inputs[data["index"]] += delta["partial_json"]
                    case "citations_delta":
                        block["citations"].append(delta["citation"])
                    case _:
                        ((key, piece),) = delta.items()
                        block[key] += piece
            case "message_delta":
                message |= data["delta"]
                message["usage"] |= data["usage"]
                if "context_management" in data:
                    message["context_management"] = data["context_management"]
    for index, text in inputs.items():
        message["content"][index]["input"] = orjson.loads(text)
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    assert "ping" in names
    return message


def test_a_script_is_a_value() -> None:
    script = parse("tokens=200; pace=25;fault=cut;at=7;delay=0.5;retry-after=3;")
    assert (script.tokens, script.pace, script.fault, script.at) == (200, 25.0, "cut", 7)
    assert (script.delay, script.retry_after) == (0.5, "3")
    assert parse("") == NORMAL
    assert parse("status=429").fault == "status"
    for fault in FAULTS:
        assert parse(f"fault={fault}").fault == fault


@pytest.mark.parametrize(
    "header",
    [
        "token=1",
        "fault=cutt",
        "tokens=-1",
        "tokens=many",
        "pace=x",
        "status=200",
        "at=²",
        "stop=tired",
    ],
)
def test_a_misspelt_script_is_refused(header: str) -> None:
    with pytest.raises(Refusal, match="x-simulate"):
        parse(header)


def breakpoint_(text: str) -> JSON:
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}


def test_a_prompt_is_written_once_and_read_from_then_on() -> None:
    known = PromptCache()
    request = plain(system=[breakpoint_("s" * 4000)])
    first, second = known.account(request), known.account(request)
    assert (first.written_5m, first.read) == (1000, 0)
    assert (second.written_5m, second.read) == (0, 1000)
    assert first.uncached == second.uncached > 0


def test_the_parts_of_a_prompt_add_up_to_what_count_tokens_says() -> None:
    known = PromptCache()
    request = samples.claude_code()
    for _ in range(2):
        prompt = known.account(request)
        parts = prompt.uncached + prompt.written_5m + prompt.written_1h + prompt.read
        assert parts == cache.count(request)


def test_a_growing_conversation_reads_what_the_last_turn_wrote() -> None:
    known = PromptCache()
    request = samples.claude_code()
    first = known.account(request)
    grown = follow(request, compose(request))
    # As Claude Code does it: the system turn becomes a string, its breakpoint moves to the end.
    grown["messages"][1] = {
        "role": "system",
        "content": request["messages"][1]["content"][0]["text"],
    }
    grown["messages"][-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
    second = known.account(grown)
    assert second.read == first.written_5m
    assert second.written_5m > 0


def test_a_changed_tool_loses_the_whole_cache() -> None:
    known = PromptCache()
    request = samples.claude_code()
    known.account(request)
    changed = request | {"tools": [WRITE, BASH]}
    assert known.account(changed).read == 0


def test_an_hour_is_accounted_apart() -> None:
    block = {**breakpoint_("s" * 400), "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    prompt = PromptCache().account(plain(system=[block]))
    assert (prompt.written_5m, prompt.written_1h) == (0, 100)


def test_the_cache_is_bounded() -> None:
    known = PromptCache(limit=3)
    for number in range(10):
        known.account(plain(system=[breakpoint_(f"{number}" * 40)]))
    assert repr(known) == "<PromptCache 3/3>"
    assert known.account(plain(system=[breakpoint_("0" * 40)])).read == 0
    assert known.account(plain(system=[breakpoint_("9" * 40)])).read == 10
