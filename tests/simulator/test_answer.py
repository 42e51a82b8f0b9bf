"""The simulated model's answer: text, thinking, the reason to stop, the events of a stream."""

import orjson
import pytest
from anthropic.types import RefusalStopDetails

from relay.simulator import events
from relay.simulator.cache import Prompt
from relay.simulator.seal import Seal

from . import samples
from .answers import SEAL, compose, only_text
from .samples import JSON, WEATHER, plain


def test_the_same_request_gets_the_same_answer() -> None:
    assert compose(samples.claude_code()) == compose(samples.claude_code())


def test_a_plain_answer_repeats_the_user_and_ends_the_turn() -> None:
    composed = compose(plain("Grüße  aus\n東京 🙂"))
    assert "“Grüße aus 東京 🙂”" in only_text(composed)
    assert composed.stop_reason == "end_turn"


def test_thinking_is_signed() -> None:
    request = plain(thinking={"type": "adaptive"})
    composed = compose(request)
    block = composed.blocks[0]
    assert block["thinking"]
    assert SEAL.verify(block["thinking"], block["signature"])
    assert not SEAL.verify(block["thinking"] + " ", block["signature"])


def test_omitted_thinking_is_empty_and_signed() -> None:
    composed = compose(plain(thinking={"type": "adaptive", "display": "omitted"}))
    block = composed.blocks[0]
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
def test_thinking_is_shown_as_asked_or_as_is_usual_for_the_model(
    model: str, display: str | None, shown: bool
) -> None:
    thinking = {"type": "adaptive"} | ({"display": display} if display else {})
    request = plain(model=model, thinking=thinking)
    composed = compose(request)
    assert bool(composed.blocks[0]["thinking"]) is shown
    deltas = sum(
        b'"thinking_delta"' in event
        for event in events.stream("m", "n", composed, Prompt(1), request)
    )
    assert deltas > 3 if shown else deltas == 0


@pytest.mark.parametrize("reason", ["max_tokens", "pause_turn", "model_context_window_exceeded"])
def test_a_script_sets_the_stop_reason(reason: str) -> None:
    composed = compose(plain(), f"tokens=3;stop={reason}")
    assert (composed.stop_reason, composed.output_tokens, composed.stop_details) == (
        reason,
        3,
        None,
    )


@pytest.mark.parametrize("tokens", [None, 5])
def test_a_refusal_has_details_and_only_scripted_words(tokens: int | None) -> None:
    composed = compose(plain(), "stop=refusal" + (f";tokens={tokens}" if tokens else ""))
    assert (composed.stop_reason, composed.output_tokens) == ("refusal", tokens or 0)
    assert len(composed.blocks) == (tokens is not None)
    assert composed.stop_details is not None
    RefusalStopDetails.model_validate(composed.stop_details, strict=True)


def test_signatures_survive_a_restart_with_the_same_seed() -> None:
    signature = Seal("a").sign("x", "x")
    assert Seal("a").verify("x", signature)
    assert not Seal("b").verify("x", signature)


def test_a_structured_answer_fits_its_schema() -> None:
    title = orjson.loads(only_text(compose(samples.claude_code_title())))
    assert title == {"title": "simulated title"}


def test_max_tokens_cuts_the_answer() -> None:
    composed = compose(plain(max_tokens=3))
    assert only_text(composed) == "This is the"
    assert (composed.stop_reason, composed.output_tokens) == ("max_tokens", 3)


def test_a_limit_of_no_tokens_makes_an_empty_answer() -> None:
    composed = compose(plain(max_tokens=0))
    assert (composed.blocks, composed.stop_reason) == ([], "max_tokens")


def test_a_stop_sequence_ends_the_answer_before_it() -> None:
    composed = compose(plain(stop_sequences=["upstream", "the"]))
    assert only_text(composed) == "This is "
    assert (composed.stop_reason, composed.stop_sequence) == ("stop_sequence", "the")


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_a_script_sets_the_length_in_tokens(count: int) -> None:
    composed = compose(plain(max_tokens=1), f"tokens={count}")
    stream = events.stream("m", "n", composed, Prompt(1), plain())
    assert composed.output_tokens == count
    assert sum(b'"text_delta"' in event for event in stream) == count


@pytest.mark.parametrize("size", [1, 100, 12345])
def test_a_script_sets_the_size_in_octets(size: int) -> None:
    assert len(only_text(compose(plain(), f"bytes={size}")).encode()) == size


def test_another_seed_gives_other_words() -> None:
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
def test_the_events_of_a_stream_add_up_to_the_message(name: str) -> None:
    request, script = ANSWERS[name]
    composed = compose(request, script)
    prompt = Prompt(10, 20, 30, 40)
    message = orjson.loads(events.message("m", "n", composed, prompt, request))
    assert added_up(events.stream("m", "n", composed, prompt, request)) == message


def added_up(stream: list[bytes]) -> JSON:
    """The message that a client assembles from the events."""
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
