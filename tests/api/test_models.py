"""The models of relay.toml in both shapes, and their other names."""

import json
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic.types import ModelCapabilities, ModelInfo

from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import MODELS, Live, RelayWith
from tests.fakes.upstream import OK, UpstreamWith, always

IDS = [model["id"] for model in MODELS]


async def get(
    live: Live, path: str, *, openai: bool = False, method: str = "GET"
) -> httpx.Response:
    headers = {"authorization": f"Bearer {live.key}"} if openai else live.headers
    async with httpx.AsyncClient() as client:
        return await client.request(method, live.url + path, headers=headers)


async def test_anthropic_version_selects_anthropics_shape(live: Live) -> None:
    answer = await get(live, "/v1/models?limit=1000")
    listed = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["request-id"].startswith("req_")
    assert [model["id"] for model in listed["data"]] == IDS
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, IDS[0], IDS[-1])
    for model in listed["data"]:
        assert model["type"] == "model"
        assert model["display_name"]
        assert model["created_at"].endswith("T00:00:00Z")


async def test_openais_shape_is_the_default(live: Live) -> None:
    listed = (await get(live, "/v1/models", openai=True)).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == IDS
    for model in listed["data"]:
        assert model["object"] == "model"
        assert isinstance(model["created"], int)
        assert isinstance(model["owned_by"], str)


@pytest.mark.parametrize(
    ("query", "expected", "more"),
    [
        ("", IDS, False),
        ("limit=1", IDS[:1], True),
        ("limit=3", IDS, False),
        (f"after_id={IDS[0]}", IDS[1:], False),
        (f"limit=1&after_id={IDS[0]}", IDS[1:2], True),
        (f"after_id={IDS[2]}", [], False),
        (f"before_id={IDS[2]}", IDS[:2], False),
        (f"limit=1&before_id={IDS[2]}", IDS[1:2], True),
        (f"before_id={IDS[0]}", [], False),
        (f"after_id={IDS[0]}&before_id={IDS[2]}", IDS[1:2], False),
        (f"after_id={IDS[2]}&before_id={IDS[0]}", [], False),
    ],
)
async def test_the_list_can_be_paged_both_ways(
    live: Live, query: str, expected: list[str], more: bool
) -> None:
    listed = (await get(live, f"/v1/models?{query}")).json()
    assert [model["id"] for model in listed["data"]] == expected
    assert listed["has_more"] == more
    assert listed["first_id"] == (expected[0] if expected else None)
    assert listed["last_id"] == (expected[-1] if expected else None)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=-1", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("after_id=unheard-of", "after_id"),
        ("before_id=unheard-of", "before_id"),
    ],
)
async def test_an_impossible_page_is_refused_by_its_parameter(
    live: Live, query: str, named: str
) -> None:
    answer = await get(live, f"/v1/models?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["message"].startswith(f"{named}: ")


@pytest.mark.parametrize("openai", [False, True])
@pytest.mark.parametrize("name", ["claude-sonnet-4-7", "claude-sonnet-4-6", "claude%2Dsonnet-4-6"])
async def test_a_model_is_found_by_its_id_and_by_its_alias(
    live: Live, name: str, openai: bool
) -> None:
    answer = await get(live, f"/v1/models/{name}", openai=openai)
    assert answer.status_code == 200
    assert answer.json()["id"] == "claude-sonnet-4-7"
    assert answer.json()["object" if openai else "type"] == "model"


async def test_an_unknown_model_is_not_found_in_either_shape(live: Live) -> None:
    answer = await get(live, "/v1/models/gpt-2")
    assert answer.status_code == 404
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "not_found_error"
    assert "gpt-2" in answer.json()["error"]["message"]
    answer = await get(live, "/v1/models/gpt-2", openai=True)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert answer.json()["error"]["param"] == "model"


async def test_listing_models_requires_a_key(live: Live) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{live.url}/v1/models", headers={"anthropic-version": "x"})
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"
        answer = await client.get(f"{live.url}/v1/models")
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_head_answers_as_get_without_the_body(live: Live) -> None:
    full = await get(live, "/v1/models")
    head = await get(live, "/v1/models", method="HEAD")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == full.headers["content-length"]


async def test_the_anthropic_sdk_lists_and_finds_models(live: Live) -> None:
    async with anthropic.AsyncAnthropic(base_url=live.url, api_key=live.key) as client:
        assert [model.id async for model in client.models.list()] == IDS
        assert [model.id async for model in client.models.list(limit=1)] == IDS
        found = await client.models.retrieve("claude-sonnet-4-6")
        assert found.id == "claude-sonnet-4-7"
        assert found.display_name == "Claude Sonnet 4.7"
        with pytest.raises(anthropic.NotFoundError):
            await client.models.retrieve("gpt-2")


async def test_public_paths_need_no_key(live: Live) -> None:
    async with httpx.AsyncClient() as client:
        for method, path, body in (
            ("GET", "/healthz", b"ok\n"),
            ("GET", "/readyz", b"ready\n"),
            ("HEAD", "/", b""),
            ("HEAD", "/api/hello", b""),
        ):
            answer = await client.request(method, live.url + path)
            assert (answer.status_code, answer.content) == (200, body)


# --- mapped names -------------------------------------------------------------------

MAPPED: list[dict[str, Any]] = [
    {"id": "plain"},
    {"id": "house", "aliases": ["home", "ho/me:1"]},
    {"id": "mapped", "aliases": ["also"], "routes": [{"upstream": "main", "model": "Vendor/M-2"}]},
]


@pytest.mark.parametrize(
    ("requested", "forwarded"),
    [
        ("plain", "plain"),
        ("house", "house"),
        ("home", "house"),
        ("ho/me:1", "house"),
        ("mapped", "Vendor/M-2"),
        ("also", "Vendor/M-2"),
    ],
)
async def test_a_mapped_body_differs_only_in_its_model(
    upstream_with: UpstreamWith, relay_with: RelayWith, requested: str, forwarded: str
) -> None:
    body = b'{ "tools":[{"model":"%b"}],\n"model" :\t"%b", "x":"\\u00fc \xc3\xbc \\"model\\":1" }\n'
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream, model=MAPPED)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, body % (requested.encode(), requested.encode())))
        assert (await read_answer(reader))[0] == 200
        assert upstream.requests[0].body == body % (requested.encode(), forwarded.encode())
        assert relay.log()[0]["model"] == requested


async def test_a_body_with_two_models_is_refused(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream, model=MAPPED)
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key, b'{"model":"plain","model":"home"}'))
        status, _, body = await read_answer(reader)
        assert status == 400
        assert json.loads(body)["error"]["message"].startswith("model: ")
        assert upstream.requests == []


async def test_a_mapped_model_lists_its_routes(relay_with: RelayWith) -> None:
    relay = await relay_with("http://127.0.0.1:9", model=MAPPED)
    assert (await get(relay, "/v1/models/also")).json()["served_as"] == ["Vendor/M-2"]
    assert (await get(relay, "/v1/models/home")).json()["served_as"] == ["house"]


async def test_an_endless_model_name_is_not_logged(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, {**BODY, "model": "m" * 1_000_000}))
        status, _, body = await read_answer(reader)
    assert status == 404
    assert len(body) < 1000
    live.log()
    assert live.log_path.stat().st_size < 2000


# --- what a model can do, and its twin ---

LONG: list[dict[str, Any]] = [
    {
        "id": "claude-opus-4-8", "display_name": "Claude Opus 4.8", "context_window": 1_000_000,
        "max_output_tokens": 128_000, "aliases": ["claude-opus-*"], "list_1m": True,
    },
    {"id": "claude-haiku-4-5"},
    {
        "id": "house", "context_window": 1_000_000, "list_1m": True,
        "routes": [{"upstream": "main", "model": "glm-5"}],
    },
]  # fmt: skip
TWINS = ["claude-opus-4-8", "claude-opus-4-8[1m]", "claude-haiku-4-5", "house", "house[1m]"]


async def test_every_capability_of_the_sdk_is_stated(relay_with: RelayWith) -> None:
    relay = await relay_with("http://127.0.0.1:9", model=LONG)
    async with anthropic.AsyncAnthropic(base_url=relay.url, api_key=relay.key) as client:
        found = {model.id: model async for model in client.models.list()}
    for id, raw in zip(found, (await get(relay, "/v1/models")).json()["data"], strict=True):
        # Strict: nothing that the SDK's type requires is missing or of another type.
        model = ModelInfo.model_validate(raw, strict=False)
        assert model == found[id]
        assert raw.keys() >= set(ModelInfo.model_fields)
        assert raw["capabilities"].keys() == set(ModelCapabilities.model_fields)
        assert (model.lifecycle, model.deprecated_at, model.retires_at) == ("active", None, None)
    opus, haiku = (found[id].capabilities for id in ("claude-opus-4-8", "claude-haiku-4-5"))
    house = found["house"].capabilities
    assert opus is not None
    assert haiku is not None
    assert house is not None
    assert opus.thinking.types.adaptive.supported
    assert opus.effort.max.supported
    assert opus.context_management.supported
    assert not haiku.thinking.types.adaptive.supported
    assert haiku.thinking.types.enabled.supported
    assert not haiku.effort.supported
    assert not house.citations.supported
    assert not house.server_tools.supported
    assert house.thinking.types.enabled.supported
    assert [found[id].line for id in ("claude-opus-4-8", "claude-haiku-4-5", "house")] == [
        "opus", "haiku", None,
    ]  # fmt: skip


async def test_a_capability_is_one_of_every_upstream(relay_with: RelayWith) -> None:
    routes = [{"upstream": "main"}, {"upstream": "main", "model": "glm-5"}]
    relay = await relay_with(
        "http://127.0.0.1:9", model=[{"id": "claude-opus-4-8", "routes": routes}]
    )
    [model] = (await get(relay, "/v1/models")).json()["data"]
    for name in ("citations", "pdf_input", "structured_outputs", "thinking", "effort"):
        assert not model["capabilities"][name]["supported"], name


async def test_a_long_model_is_listed_twice_in_anthropics_shape(relay_with: RelayWith) -> None:
    relay = await relay_with("http://127.0.0.1:9", model=LONG)
    listed = (await get(relay, "/v1/models?limit=1000")).json()
    assert [model["id"] for model in listed["data"]] == TWINS
    opus, twin = listed["data"][:2]
    assert twin == {**opus, "id": TWINS[1], "display_name": "Claude Opus 4.8 (1M context)"}
    assert (opus["max_input_tokens"], opus["max_tokens"]) == (1_000_000, 128_000)
    paged = (await get(relay, f"/v1/models?after_id={TWINS[1]}&limit=2")).json()
    assert [model["id"] for model in paged["data"]] == TWINS[2:4]
    assert (paged["first_id"], paged["last_id"], paged["has_more"]) == (TWINS[2], TWINS[3], True)
    openai = (await get(relay, "/v1/models", openai=True)).json()
    assert [model["id"] for model in openai["data"]] == [model["id"] for model in LONG]
    codex = (await get(relay, "/v1/models?client_version=1", openai=True)).json()
    assert [entry["slug"] for entry in codex["models"]] == [model["id"] for model in LONG]


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("claude-opus-4-8[1m]", "claude-opus-4-8[1m]"),  # as it is listed
        ("claude-opus-4-8%5B1m%5D", "claude-opus-4-8[1m]"),
        ("claude-opus-4-8[1M]", "claude-opus-4-8"),
        ("claude-opus-9[1m]", "claude-opus-4-8"),
        ("claude-haiku-4-5[1m]", "claude-haiku-4-5"),  # has no twin
    ],
)
async def test_a_twin_is_found_by_its_own_name(relay_with: RelayWith, name: str, id: str) -> None:
    relay = await relay_with("http://127.0.0.1:9", model=LONG)
    assert (await get(relay, f"/v1/models/{name}")).json()["id"] == id
    without = (await get(relay, f"/v1/models/{name}", openai=True)).json()["id"]
    assert without == id.removesuffix("[1m]")


async def test_the_openai_sdk_lists_and_finds_models(relay_with: RelayWith) -> None:
    relay = await relay_with("http://127.0.0.1:9", model=LONG)
    async with openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=relay.key) as client:
        assert [model.id async for model in client.models.list()] == [one["id"] for one in LONG]
        found = await client.models.retrieve("claude-opus-9[1m]")
    assert (found.id, found.object) == ("claude-opus-4-8", "model")
