"""Scenarios in groups, each with a sentence, as tables and the page show them.

Decides the order in which a reader meets scenarios. Must not know how one is measured. A scenario
without a group comes last.
"""

from collections.abc import Iterable, Mapping

_GROUPS: Mapping[str, Mapping[str, str]] = {
    "Small requests": {
        "json": "Every connection sends its next request at once: the proxy's core is full.",
        "json-8": "The same with 8 connections.",
        "rate": "The most requests a second with p99 of 1 ms at most and no failure.",
        "paced": "The same number of requests a second for each rival: cores are partly idle.",
        "chat-json": "Chat completions, translated to and from Messages.",
        "responses-json": "Responses, translated to and from Messages.",
        "http2-json": "Over HTTP/2 without TLS, 16 streams a connection.",
        "tls-json": "Over TLS.",
        "tls-http2-json": "Over HTTP/2 with TLS.",
    },
    "Latency": {
        "latency": "One request at a time on one connection. A proxy adds its distance to direct.",
        "first": "The first event of one stream at a time. A proxy adds its distance to direct.",
        "chat-first": "The first content of one stream at a time, Messages and chat in turns.",
        "starts": "Streams that start at a constant rate.",
        "gaps": "How much further apart events are than the upstream sent them.",
    },
    "Streams": {
        "sse": "Streams side by side, each at its own pace, read to the end.",
        "chat-sse": "Chat completions, translated from Messages event by event.",
        "responses-sse": "Responses, translated from Messages event by event.",
        "http2-sse": "Over HTTP/2 without TLS, 16 streams a connection.",
        "tls-sse": "Over TLS.",
        "live-streams": "Thousands of streams on one core; an event lost is an error.",
        "idle-streams": "Streams that are open and silent.",
        "idle-streams-10k": "As many silent streams as one core can hold.",
    },
    "Large bodies": {
        "json-300k": "Requests of 300 KB, as a coding agent sends, on 8 connections.",
        "json-1m": "Requests of 1 MB on 8 connections.",
        "body-memory": "Memory of a live stream by the size of its request.",
        "chat-body-memory": "The same in chat completions.",
        "responses-body-memory": "The same in Responses.",
    },
    "Memory and start": {
        "memory": "Resident memory at rest, and for each live stream with a small request.",
        "idle": "Keep-alive connections without a request.",
        "slow": "Clients that stop reading a large stream.",
        "ready": "From the start of the process to the first request that it can take.",
    },
    "Coding agents": {
        "agents": "Traces of agents: thinking pauses, tool loops, aborts.",
        "quota": "A quota under load, counted exactly.",
        "handover": "A new process takes over under load.",
    },
}
_OTHERS = "Others"


def grouped(scenarios: Iterable[str]) -> Mapping[str, list[str]]:
    """The scenarios by the title of their group."""
    left = list(scenarios)
    found: dict[str, list[str]] = {}
    for title, group in _GROUPS.items():
        if chosen := [name for name in group if name in left]:
            found[title] = chosen
            left = [name for name in left if name not in group]
    return found | ({_OTHERS: left} if left else {})


def sentence(scenario: str) -> str:
    """A scenario in a sentence; empty for one without."""
    return next((group[scenario] for group in _GROUPS.values() if scenario in group), "")
