"""The simulated API accepts the requests of real clients, by the rules of each version."""

import pytest

from relay.simulator import strict
from relay.simulator.refusal import Refusal

from . import samples
from .conversations import (
    HI,
    MID,
    SYSTEM,
    assistant,
    call,
    check,
    conversation,
    image,
    result,
    text,
    thought,
    user,
)
from .samples import BASH, CLAUDE_CODE_BETAS, JSON, WRITE, plain

ACCEPTED: dict[str, tuple[JSON, bytes]] = {
    "plain": (plain(), b""),
    "claude code, sonnet": (samples.claude_code(), CLAUDE_CODE_BETAS),
    "claude code, haiku": (samples.claude_code_haiku(), CLAUDE_CODE_BETAS),
    "claude code, opus": (
        samples.claude_code_opus(),
        CLAUDE_CODE_BETAS + b",per-turn-control-2026-07-01",
    ),
    "claude code, interactive": (
        samples.claude_code(safeguards=[{"type": "dangerous_tool_use"}]),
        CLAUDE_CODE_BETAS + b",dangerous-tool-use-2026-09-03,afk-mode-2026-01-31",
    ),
    "claude code, title": (
        samples.claude_code_title(),
        b"redact-thinking-2026-02-12,structured-outputs-2025-12-15",
    ),
    "claude code, web search": (samples.claude_code_search(), b""),
    "hermes": (samples.hermes(), b"fine-grained-tool-streaming-2025-05-14"),
    "system turn as a string in a later turn": (
        conversation(HI, SYSTEM, assistant(call("t1")), user(result("t1"))),
        MID,
    ),
    "parallel calls": (
        conversation(HI, assistant(call("t1"), call("t2")), user(result("t2"), result("t1"))),
        b"",
    ),
    "results spread over consecutive user messages": (
        conversation(HI, assistant(call("t1"), call("t2")), user(result("t1")), user(result("t2"))),
        b"",
    ),
    "text after results": (
        conversation(HI, assistant(call("t1")), user(result("t1"), text("and now?"))),
        b"",
    ),
    "image in a result": (
        conversation(
            HI,
            assistant(call("t1")),
            user(result("t1", content=[image(type="base64", media_type="image/png", data="aGk=")])),
        ),
        b"",
    ),
    "images and documents from everywhere": (
        conversation(
            user(
                image(type="url", url="https://x.example/a.png"),
                image(type="base64", media_type="image/webp", data="aGk="),
                {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}},
                {
                    "type": "document",
                    "title": "a.txt",
                    "source": {"type": "text", "media_type": "text/plain", "data": "hi"},
                },
            )
        ),
        b"",
    ),
    "signed thinking": (
        conversation(HI, assistant(thought("hm"), call("t1")), user(result("t1"))),
        b"",
    ),
    "prefill of an older model": (
        conversation(HI, assistant(text("The answer is (")), model="claude-sonnet-4-5"),
        b"",
    ),
    "thinking budget over max_tokens when interleaved": (
        plain(
            model="claude-haiku-4-5",
            thinking={"type": "enabled", "budget_tokens": 4096},
            tools=[BASH],
        ),
        b"interleaved-thinking-2025-05-14",
    ),
    "a vendor's model": (plain(model="MiniMax-M2", temperature=0.2, top_p=0.5), b""),
    "nothing to generate": (plain(max_tokens=0), b""),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_requests_of_real_clients_are_accepted(name: str) -> None:
    request, betas = ACCEPTED[name]
    check(request, betas)


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(Refusal) as caught:
        check(plain(model="gpt-9"))
    assert (caught.value.status, caught.value.type) == (404, "not_found_error")
    assert caught.value.message == "model: gpt-9"


@pytest.mark.parametrize(
    ("request_", "betas"),
    [
        (samples.claude_code(), "context-management"),
        (samples.claude_code(), "mid-conversation-tool-changes"),
        (samples.claude_code_opus(), "per-turn-control"),
        (samples.claude_code(safeguards=[]), "dangerous-tool-use"),
    ],
)
def test_a_field_without_its_beta_is_refused(request_: JSON, betas: str) -> None:
    everything = (
        CLAUDE_CODE_BETAS + b",per-turn-control-2026-07-01,dangerous-tool-use-2026-09-03"
    ).split(b",")
    check(request_, b",".join(everything))
    kept = [name for name in everything if not name.startswith(betas.encode())]
    with pytest.raises(Refusal, match=r"not permitted|Unexpected role"):
        check(request_, b",".join(kept))


def test_a_system_message_cannot_come_first() -> None:
    with pytest.raises(Refusal, match=r"messages\.0: the first message must use the user role"):
        check(conversation(SYSTEM, HI), MID)


def test_a_small_model_has_no_system_messages() -> None:
    with pytest.raises(Refusal, match="role 'system' is not supported on this model"):
        check(conversation(HI, SYSTEM, model="claude-haiku-4-5"), MID)


def test_the_newest_version_has_system_messages_without_a_beta() -> None:
    check(conversation(HI, SYSTEM), ga=True)


def test_count_tokens_refuses_max_tokens() -> None:
    request = plain()
    with pytest.raises(Refusal, match="max_tokens: Extra inputs are not permitted"):
        check(request, counting=True)
    del request["max_tokens"]
    check(request | {"tools": [WRITE], "thinking": {"type": "adaptive"}}, counting=True)


@pytest.mark.parametrize("value", [b"2023-06-01", b"2026-10-21"])
def test_both_versions_are_accepted(value: bytes) -> None:
    strict.version(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "anthropic-version: header is required"),
        (b"", "anthropic-version: header is required"),
        (b"2024-01-01", 'anthropic-version: "2024-01-01" is not a valid version'),
    ],
)
def test_a_missing_or_unknown_version_is_refused(value: bytes | None, message: str) -> None:
    with pytest.raises(Refusal) as caught:
        strict.version(value)
    assert caught.value.message == message


def test_an_unknown_beta_is_accepted_and_a_malformed_one_refused() -> None:
    assert strict.betas(b"a-thing-2027-01-01, claude-code-20250219,") == {"a-thing", "claude-code"}
    with pytest.raises(Refusal, match=r"Unexpected value\(s\) `nonsense` for the `anthropic-beta`"):
        strict.betas(b"claude-code-20250219,nonsense")
