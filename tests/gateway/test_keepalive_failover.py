"""Another upstream takes over a stream that has sent no content."""

import asyncio

import pytest

from tests.fakes import answers
from tests.fakes.live import Live, RelayWith, upstream_row
from tests.fakes.upstream import Answer, Seen, UpstreamWith, always
from tests.gateway.streaming import (
    EVENTS,
    HEAD,
    LIVELY,
    OVERLOADED,
    End,
    Reset,
    Step,
    asking,
    in_chunks,
    steps,
)

pytestmark = pytest.mark.usefixtures("quick_clock")


async def two_upstreams(
    upstream_with: UpstreamWith, relay_with: RelayWith, first: Answer, second: Answer
) -> Live:
    """A relay that always tries the first of two upstreams first."""
    one, two = await upstream_with(first), await upstream_with(second)
    rows = [upstream_row("one", one), upstream_row("two", two, {"priority": 1})]
    return await relay_with(rows, pool=LIVELY)


GIVES_UP: dict[str, tuple[Step, ...]] = {
    "cut": (End,),
    "reset": (Reset,),
    "error-event": (answers.chunk(b"event: error\ndata: " + OVERLOADED + b"\n\n"),),
    "end-without-content": (answers.LAST,),
}


@pytest.mark.parametrize("how", GIVES_UP)
@pytest.mark.parametrize("shown", [0, 1, 3], ids=["head", "message-start", "empty-text"])
async def test_another_upstream_continues_the_open_stream(
    upstream_with: UpstreamWith, relay_with: RelayWith, shown: int, how: str
) -> None:
    go_on, again = asyncio.Event(), asyncio.Event()
    other = answers.stream(("from ", "the other"))
    first = steps(HEAD + in_chunks(EVENTS[:shown]), go_on, *GIVES_UP[how])
    second = steps(HEAD + answers.chunk(other[0]), again, in_chunks(other[1:]) + answers.LAST)
    relay = await two_upstreams(upstream_with, relay_with, first, second)
    async with asking(relay) as answered:
        await answered.pings(2)
        go_on.set()
        await answered.pings(4)
        again.set()
        await answered.end()
        [line] = relay.log()
    assert answered.complete
    assert answered.payload.count(b"event: message_start\n") == 1
    answered.assert_events(other)
    assert (line["upstream"], line["outcome"], line["rule"]) == ("two", "whole", "reported")
    assert line["tried"].startswith("one: ")


async def test_a_refusal_after_pings_moves_on_to_another_upstream(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    go_on = asyncio.Event()
    first = steps(go_on, answers.sized(OVERLOADED, b"529 Overloaded"))
    second = always(answers.chunked(EVENTS))
    relay = await two_upstreams(upstream_with, relay_with, first, second)
    async with asking(relay) as answered:
        await answered.pings(2)
        go_on.set()
        await answered.end()
    assert answered.complete
    answered.assert_events(EVENTS)


async def test_a_timed_out_request_is_not_sent_to_another_upstream(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    """The first upstream may still be working on it: no work is done and paid for twice."""
    never = asyncio.Event()
    asked = asyncio.Event()

    async def second(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        asked.set()
        writer.write(answers.chunked(EVENTS))

    one = upstream_row("one", await upstream_with(steps(never)), {"timeouts": {"first_byte": 0.3}})
    two = upstream_row("two", await upstream_with(second), {"priority": 1})
    relay = await relay_with([one, two], pool=LIVELY)
    async with asking(relay) as answered:
        await answered.end()
    [(_, document)] = answered.events
    assert "in time" in document["error"]["message"]
    assert not asked.is_set()
