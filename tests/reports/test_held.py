"""Section S: ids that mean something at one upstream alone."""

import json
from typing import Any

import pytest

from tests.fakes import answers
from tests.fakes.live import RelayWith, upstream_row
from tests.fakes.upstream import Seen, UpstreamWith
from tests.reports.asking import MODELS, SONNET, Desk, desk, message
from tests.reports.test_blame import refusal

BETA = "anthropic-beta: message-threads-2026-08-12\r\n"


def threads(name: str) -> Any:
    """An upstream that holds threads: the ids of its messages are its own."""
    held: set[str] = set()

    async def answer(reader: Any, writer: Any, seen: Seen) -> None:
        body = json.loads(seen.body)
        thread = body.get("thread", {})
        if thread.get("type") == "continue" and thread["previous_message_id"] not in held:
            details = {"error_code": "thread_not_found"}
            writer.write(refusal("thread not found", b"404 Not Found", details=details))
            return
        id = f"msg_{name}{len(held)}"
        held.add(id)
        writer.write(answers.sized(json.dumps({**message(), "id": id}).encode()))

    return answer


async def two_equal(relay_with: RelayWith, upstream_with: UpstreamWith, **options: Any) -> Desk:
    one, two = await upstream_with(threads("A")), await upstream_with(threads("B"))
    rows = [upstream_row("a", one, options), upstream_row("b", two, options)]
    return Desk(await relay_with(rows, model=MODELS), one, two)


async def test_s01_a_thread_stays_with_its_upstream(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    it = await two_equal(relay_with, upstream_with, vendor="anthropic")
    for talk in range(4):
        turn = {"role": "user", "content": f"Talk {talk}"}
        body: dict[str, Any] = {"messages": [turn], "thread": {"type": "create"}}
        answer = await it.ask("messages", body, fields=BETA)
        assert answer.status == 200, answer.payload
        for number in range(3):
            await it.ask("messages", {"messages": [{"role": "user", "content": f"{number}"}]})
            thread = {"type": "continue", "previous_message_id": answer.document["id"]}
            turn = {"role": "user", "content": f"Turn {number} of {talk}"}
            answer = await it.ask("messages", {"messages": [turn], "thread": thread}, fields=BETA)
            assert answer.status == 200, answer.payload


@pytest.mark.parametrize("streamed", [False, True])
async def test_s01_a_streamed_thread_stays_too(
    relay_with: RelayWith, upstream_with: UpstreamWith, streamed: bool
) -> None:
    served: list[bytes] = []

    def naming(name: bytes) -> Any:
        async def answer(reader: Any, writer: Any, seen: Seen) -> None:
            served.append(name)
            events = [event.replace(b"msg_1", b"msg_" + name) for event in answers.stream()]
            writer.write(answers.chunked(events))

        return answer

    one, two = await upstream_with(naming(b"A")), await upstream_with(naming(b"B"))
    rows = [
        upstream_row("a", one, {"vendor": "anthropic"}),
        upstream_row("b", two, {"vendor": "anthropic"}),
    ]
    it = Desk(await relay_with(rows, model=MODELS), one, two)
    body: dict[str, Any] = {"stream": True, "thread": {"type": "create"}}
    first = await it.ask("messages", body, fields=BETA)
    id = first.events[0]["message"]["id"]
    for number in range(4):
        turn = {"role": "user", "content": f"Turn {number}"}
        thread = {"type": "continue", "previous_message_id": id}
        await it.ask(
            "messages", {"messages": [turn], "stream": streamed, "thread": thread}, fields=BETA
        )
    assert len(set(served)) == 1


@pytest.mark.parametrize("vendor", ["glm", "kimi", "minimax", "deepseek"])
async def test_s03_no_thread_where_none_is_held(
    relay_with: RelayWith, upstream_with: UpstreamWith, vendor: str
) -> None:
    routes = [{"upstream": name, "model": f"{vendor}-4"} for name in ("a", "b")]
    model = [{"id": SONNET, "routes": routes}]
    it = await desk(relay_with, upstream_with, options={"vendor": vendor}, model=model)
    thread = {"type": "continue", "previous_message_id": "msg_A1"}
    answer = await it.ask("messages", {"thread": thread}, fields=BETA)
    assert answer.status == 400
    error = answer.document["error"]
    assert error["details"]["error_code"] == "thread_unsupported_request"
    assert it.a.requests == it.b.requests == []


async def test_s05_a_missing_file_is_the_callers(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    words = json.dumps(
        {
            "type": "error",
            "error": {"type": "not_found_error", "message": "File not found: file_x"},
        }
    ).encode()
    missing = answers.sized(words, b"404 Not Found")
    it = await desk(relay_with, upstream_with, missing, missing, options={"vendor": "anthropic"})
    source = {"type": "file", "file_id": "file_x"}
    turn = {"role": "user", "content": [{"type": "document", "source": source}]}
    answer = await it.ask("messages", {"messages": [turn]})
    assert answer.status == 404
    assert answer.document["error"]["message"] == "File not found: file_x"
    asked = len(it.a.requests)
    await it.ask("messages", {})
    assert len(it.a.requests) == asked + 1  # it still serves the model


async def test_s07_nobody_goes_on_with_anothers_thread(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    it = await two_equal(relay_with, upstream_with, vendor="anthropic")
    first = await it.ask("messages", {"thread": {"type": "create"}}, fields=BETA)
    await it.relay.create_user("other@example.com")
    key = await it.relay.new_key("other@example.com")
    thread = {"type": "continue", "previous_message_id": first.document["id"]}
    answer = await it.ask("messages", {"thread": thread}, fields=BETA, key=key)
    assert answer.status in (400, 404)
    assert answer.document["error"]["details"]["error_code"] == "thread_not_found"
