"""Names that a pattern or the suffix [1m] leads to, in every dialect and in every count."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.accounts import keys
from relay.accounts.key_rules import rules
from relay.gateway import request_metrics
from relay.store.keys import live_keys
from tests.api.admin_listener import admin_relay
from tests.api.scrape import scraped
from tests.fakes.caller import BODY
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import OK, Upstream, UpstreamWith, always
from tests.gateway import metering
from tests.gateway.metering import settled
from tests.reload.reloading import reloading

OPUS, HAIKU = "claude-opus-4-8", "claude-haiku-4-5"
FAMILIES: list[dict[str, Any]] = [
    {
        "id": OPUS, "aliases": ["claude-opus-*", "house"],
        "price": {"input": 1000.0, "output": 1000.0},
    },
    {"id": HAIKU, "aliases": ["claude-*"], "price": {"input": 1.0, "output": 1.0}},
]  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "/v1/messages": BODY,
    "/v1/chat/completions": {"messages": BODY["messages"]},
    "/v1/responses": {"input": "hi"},
}


async def ask(
    relay: Live, name: str, path: str = "/v1/messages", **more: Any
) -> tuple[int, dict[str, Any]]:
    body = {**BODIES.get(path, BODY), **more, "model": name}
    status, _, octets = await metering.ask(relay, body=body, target=path)
    return status, json.loads(octets)


async def restrict(relay: Live, *models: str) -> None:
    [key] = await live_keys(relay.app.database)
    await keys.set_rules(relay.app.database, key.key_id, rules(models=models), 0.0)
    await relay.reload_keys()


def sent(upstream: Upstream) -> list[str]:
    return [json.loads(seen.body)["model"] for seen in upstream.requests]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("claude-opus-5-5", OPUS),
        ("claude-opus-5-5[1M]", OPUS),
        (f"{OPUS}[1m]", OPUS),
        ("house[1m]", OPUS),
        ("claude-sonnet-9", HAIKU),
    ],
)
async def test_every_dialect_takes_such_a_name(
    upstream_with: UpstreamWith, relay_with: RelayWith, path: str, name: str, model: str
) -> None:
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream, model=FAMILIES)
    status, _ = await ask(relay, name, path)
    assert (status, sent(upstream)) == (200, [model])
    assert [line["model"] for line in relay.log()] == [name]  # as it was asked for


async def test_tokens_are_counted_by_such_a_name(live_families: Live) -> None:
    body = {"model": "claude-opus-5-5[1m]", "messages": BODY["messages"]}
    target = "/v1/messages/count_tokens"
    status, _, octets = await metering.ask(live_families, body=body, target=target)
    assert status == 200
    assert json.loads(octets)["input_tokens"] > 0


@pytest.fixture
async def live_families(relay_with: RelayWith) -> Live:
    """In front of the simulator."""
    return await relay_with(model=FAMILIES)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", ["gpt-5", "gpt-5[1m]", "[1m]", "claude-ü"])
async def test_any_other_name_is_still_unknown(live_families: Live, path: str, name: str) -> None:
    status, document = await ask(live_families, name, path)
    assert status == 404
    assert document["error"]["message"] == f"Unknown model {name!r}. Available: {OPUS}, {HAIKU}."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("answer_model", "shown"), [("asked", None), ("served", OPUS)])
async def test_the_answer_names_the_model_as_set(
    relay_with: RelayWith, answer_model: str, shown: str | None, stream: bool
) -> None:
    relay = await relay_with(model=[{**FAMILIES[0], "answer_model": answer_model}])
    for name in ("claude-opus-5-5", "claude-opus-5-5[1m]", "house[1M]"):
        body = {**BODY, "model": name, "stream": stream}
        _, _, octets = await metering.ask(relay, body=body)
        assert b'"model":"%s"' % (shown or name).encode() in octets


async def test_a_name_that_the_upstream_has_goes_there_as_it_came(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(always(OK))
    row = {
        "id": "glm", "aliases": ["glm-*"], "answer_model": "asked",
        "routes": [{"upstream": "main", "model": "glm-5[1m]"}],
    }  # fmt: skip
    relay = await relay_with(upstream, model=[row])
    for name in ("glm-5[1m]", "glm-5", "glm-4", "glm"):
        assert (await ask(relay, name))[0] == 200
    assert sent(upstream) == ["glm-5[1m]"] * 4
    own, other = (relay.app.catalog.route(name).targets[0] for name in ("glm-5[1m]", "glm-4"))
    assert (own.model, own.shows_asked_name) == (None, False)  # octet for octet
    assert (other.model, other.shows_asked_name) == ("glm-5[1m]", True)


async def test_a_model_without_an_upstream_says_so(relay_with: RelayWith) -> None:
    glm = {"vendor": "glm"}
    relay = await relay_with("http://127.0.0.1:9", model=FAMILIES, upstream_options=glm)
    status, document = await ask(relay, "claude-opus-9[1m]")
    assert status == 503
    assert f"No upstream of this relay serves {OPUS}" in document["error"]["message"]


async def test_usage_is_kept_and_billed_by_the_model(relay_with: RelayWith) -> None:
    plan = metering.plan(billing="per-token")
    relay = await relay_with(model=FAMILIES, plan=plan)
    await metering.credit(relay, 10**9)
    asked = ["claude-opus-5-5", "house", "house[1m]", "claude-x", f"{OPUS}[1m]"]
    for name in asked:
        assert (await ask(relay, name))[0] == 200
    rows = await settled(relay, len(asked))
    assert [row["model"] for row in rows] == [OPUS, "house", "house", HAIKU, OPUS]
    prices = [1000, 1000, 1000, 1, 1000]
    for row, price in zip(rows, prices, strict=True):
        assert row["cost_micro"] == price * (row["input"] + row["output"])


async def test_invented_names_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_metrics, "_MAX_KEYS", 16)
    async with admin_relay(tmp_path, model=FAMILIES) as relay:
        catalog, requests = relay.app.catalog, relay.app._parts.requests
        for number in range(40):
            await ask(relay, f"claude-opus-{number}")
        samples = await scraped(relay)
        found = {dict(own)["model"] for name, own in samples if name == "relay_requests_total"}
        assert found == {OPUS}
        assert len(requests.series()) <= 2  # one an upstream
        assert len(requests._by_key) <= 16
        assert sum(series.completed for series in requests.series()) == 40
        names = {row["model"] for row in await settled(relay, 40)}
        assert names == {OPUS}
        for number in range(5_000):
            assert catalog.limits(f"claude-opus-{number}") is catalog.limits(OPUS)
            assert len(catalog._limits) <= 3 + 1_024


@pytest.mark.parametrize(
    ("allowed", "name", "status"),
    [
        (OPUS, "claude-opus-9", 200),
        (OPUS, f"{OPUS}[1m]", 200),
        ("claude-opus-*", "claude-opus-9", 200),
        ("claude-*", "claude-opus-9", 200),
        ("claude-opus-9", "claude-opus-9", 200),
        ("house", "house[1m]", 200),
        (HAIKU, "claude-opus-9", 403),
        ("claude-opus-9*", "claude-opus-99", 403),  # made up to fit the key, costs another model
        ("claude-sonnet-*", "claude-sonnet-4-7", 403),
    ],
)
async def test_a_keys_models_hold_for_such_names(
    live_families: Live, allowed: str, name: str, status: int
) -> None:
    await restrict(live_families, allowed)
    found, document = await ask(live_families, name)
    assert found == status
    if status == 403:
        assert f"{name!r}, which is 'claude-" in document["error"]["message"]
        assert allowed in document["error"]["message"]


async def test_a_pattern_comes_and_goes_with_a_reload(
    tmp_path: Path, upstream_with: UpstreamWith
) -> None:
    upstream = await upstream_with(always(OK))
    row = {"name": "main", "base_url": upstream.url, "api_key": "k"}
    plain = [{"id": OPUS}, {"id": HAIKU}]
    async with reloading(tmp_path, upstream=[row], model=plain) as relay:
        assert (await ask(relay.live, "claude-opus-9"))[0] == 404
        await relay.reload(model=[{"id": OPUS, "aliases": ["claude-*"]}, {"id": HAIKU}])
        assert (await ask(relay.live, "claude-opus-9"))[0] == 200
        await relay.reload(model=[{"id": OPUS}, {"id": HAIKU, "aliases": ["claude-*"]}])
        assert (await ask(relay.live, "claude-opus-9"))[0] == 200
        await relay.reload(model=plain)
        assert (await ask(relay.live, "claude-opus-9"))[0] == 404
    assert sent(upstream) == [OPUS, HAIKU]


@pytest.mark.parametrize("openai", [False, True])
@pytest.mark.parametrize("name", ["claude-opus-9", "house%5B1m%5D", "claude-opus-9[1M]"])
async def test_such_a_name_is_found_among_the_models(
    live_families: Live, name: str, openai: bool
) -> None:
    headers = live_families.headers
    if openai:
        headers = {"authorization": f"Bearer {live_families.key}"}
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{live_families.url}/v1/models/{name}", headers=headers)
    assert (answer.status_code, answer.json()["id"]) == (200, OPUS)
