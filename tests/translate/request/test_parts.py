"""The parts of a request are written as the API accepts them, or refused by name."""

import base64
from typing import Any

import msgspec
import pytest

from relay.config import Capabilities
from relay.errors import RelayError
from relay.translate import pacing
from relay.translate.raw_json import NOTHING, decode_string
from relay.translate.request import media
from relay.translate.request.block import Block, text_block, write
from relay.translate.request.builder import MessagesBuilder, TargetModel
from relay.translate.request.conversation import Conversation, Turn, fit_turns
from relay.translate.request.options import GenerationOptions
from relay.translate.request.thinking_replay import (
    ANTHROPIC,
    ThinkingMessage,
    Thought,
    read_thoughts,
)
from relay.translate.request.tools import Tool, Toolset, WebSearch

JSON = dict[str, Any]
TARGET = TargetModel("m", 1000, ANTHROPIC, Capabilities(prefill=True, web_search=True))


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def written(*blocks: Block) -> list[JSON]:
    out: list[Any] = []
    write(out, blocks)
    document: list[JSON] = msgspec.json.decode(b"[" + b"".join(out) + b"]")
    return document


def body(conversation: Conversation, tools: Toolset | None = None) -> JSON:
    builder = MessagesBuilder(conversation, tools or Toolset(), GenerationOptions(), stream=False)
    document: JSON = msgspec.json.decode(builder.octets(TARGET, breakpoints=False, user=None))
    return document


def text_url(octets: bytes) -> msgspec.Raw:
    return raw({"file_data": f"data:text/plain;base64,{base64.b64encode(octets).decode()}"})


# --- JSON strings and media -------------------------------------------------------------


@pytest.mark.parametrize("value", [b'"\xff"', b'"\\ud800"', b'"open'])
def test_a_string_that_cannot_be_read_names_its_field(value: bytes) -> None:
    with pytest.raises(RelayError) as error:
        decode_string(msgspec.Raw(value), "input")
    assert error.value.param == "input"


def test_a_document_may_be_fetched_by_the_api() -> None:
    url = "https://example.com/a.pdf"
    (block,) = written(media.linked(raw(url), raw("A title"), "p"))
    assert block == {
        "type": "document",
        "source": {"type": "url", "url": url},
        "title": "A title",
    }
    (untitled,) = written(media.linked(raw(url), raw(" "), "p"))
    assert "title" not in untitled


def test_a_document_elsewhere_than_on_the_web_is_refused() -> None:
    with pytest.raises(RelayError, match="http"):
        media.linked(raw("file:///etc/passwd"), NOTHING, "p")


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(text_url(b" \n"), id="blank"),
        pytest.param(text_url(b"x" * 10_000_000), id="too long"),
        pytest.param(text_url(b"\xff"), id="no UTF-8"),
    ],
)
def test_a_text_document_that_no_model_can_read_is_refused(document: msgspec.Raw) -> None:
    with pytest.raises(RelayError) as error:
        media.file(document, NOTHING, "file")
    assert error.value.param == "file.file_data"


# --- thinking ---------------------------------------------------------------------------


def test_thinking_stands_between_the_texts_that_it_was_between() -> None:
    texts = [text_block(raw(text)) for text in ("One.", " ", "Two.")]
    thoughts = [Thought(ANTHROPIC, raw("hm"), raw("s"), place=(5, 0))]
    blocks, is_first = ThinkingMessage(texts, [], thoughts).blocks_for(ANTHROPIC)
    assert [block.get("text", "thinking") for block in written(*blocks)] == [
        "One.",
        "thinking",
        "Two.",
    ]
    assert not is_first


@pytest.mark.parametrize(
    ("specific", "texts"),
    [
        pytest.param({}, ["bare"], id="neither"),
        pytest.param({"thinking_blocks": [{"type": "a_new_one"}]}, ["bare"], id="a new type"),
        pytest.param(
            {"thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}]},
            ["t"],
            id="blocks",
        ),
        pytest.param(
            {"reasoning_details": [{"type": "reasoning.text", "text": "d"}]}, ["d"], id="details"
        ),
    ],
)
def test_thinking_is_found_where_litellm_puts_it(specific: JSON, texts: list[str]) -> None:
    found = read_thoughts(NOTHING, NOTHING, raw(specific), raw("bare"), "m")
    assert [msgspec.json.decode(thought.text) for thought in found] == texts


# --- the builder ------------------------------------------------------------------------


def test_a_prefill_ends_without_thinking_and_white_space() -> None:
    conversation = Conversation()
    conversation.user_turn().blocks.append(text_block(raw("Go on.")))
    blocks = conversation.assistant_turn().blocks
    blocks += [text_block(raw("Yes: \n")), Block((b'{"type":"thinking","thinking":', b'"hm"'))]
    assert body(conversation)["messages"][1]["content"] == [{"type": "text", "text": "Yes:"}]


def test_a_prefill_of_thinking_alone_is_left_out() -> None:
    conversation = Conversation()
    conversation.user_turn().blocks.append(text_block(raw("Go on.")))
    thinking = Block((b'{"type":"thinking","thinking":', b'"hm"'))
    conversation.assistant_turn().blocks.append(thinking)
    assert [message["role"] for message in body(conversation)["messages"]] == ["user"]


def test_a_prefill_may_end_with_another_block() -> None:
    conversation = Conversation()
    conversation.user_turn().blocks.append(text_block(raw("Go on.")))
    conversation.assistant_turn().blocks.append(Block((b'{"type":"a_new_one"',)))
    assert body(conversation)["messages"][1]["content"] == [{"type": "a_new_one"}]


def test_a_conversation_without_turns_is_refused() -> None:
    conversation = Conversation()
    conversation.assistant_turn().blocks.append(Block((b'{"type":"thinking","thinking":', b'"h"')))
    with pytest.raises(RelayError, match="nothing in them"):
        body(conversation)


def test_a_web_search_beside_a_tool_of_that_name_is_refused() -> None:
    conversation = Conversation()
    conversation.user_turn().blocks.append(text_block(raw("Search.")))
    tool = Tool("web_search", NOTHING, b'{"type":"object"}', strict=False, cache=NOTHING)
    with pytest.raises(RelayError, match="already"):
        body(conversation, Toolset(tools=(tool,), search=WebSearch()))
    optional = body(conversation, Toolset(tools=(tool,), search=WebSearch(required=False)))
    assert [each["name"] for each in optional["tools"]] == ["web_search"]


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_user_turns_around_turns_that_are_left_out_become_one(number: int) -> None:
    turns = []
    for one in range(number):
        turns += [Turn(assistant=False), Turn(assistant=True)]
        turns[-2].blocks.append(text_block(raw(f"{one}")))
    [fitted], begins_thinking = fit_turns(turns, ANTHROPIC)
    assert [block["text"] for block in written(*fitted.blocks)] == [str(n) for n in range(number)]
    assert not begins_thinking
    assert [len(turn.blocks) for turn in turns] == [1, 0] * number  # for another model


@pytest.mark.parametrize("paused", [False, True], ids=["at-once", "with-pauses"])
def test_a_freed_request_leaves_nothing_where_work_pauses(paused: bool) -> None:
    conversation = Conversation()
    for _ in range(50):
        conversation.user_turn().results += [text_block(raw("found"))] * 40
        conversation.assistant_turn().blocks += [text_block(raw("hello"))] * 100
    kept = [*conversation.turns]
    assert len(kept) == 100
    builder = MessagesBuilder(conversation, Toolset(), GenerationOptions(), stream=False)
    pauses: list[int] = []
    if paused:
        pacing.run(builder.free, lambda: pauses.append(1))
    else:
        builder.free()
    assert bool(pauses) == paused
    assert (conversation.turns == []) == paused
    assert all((turn.blocks == turn.results == []) == paused for turn in kept)
