"""The relay keeps to its own description, whatever a client of that description sends."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from relay.accounts.admin_keys import SCOPES
from relay.api.endpoints import dialects as relayed
from relay.gateway.history import ConversationHistory
from relay.provisioning import openapi
from relay.provisioning.call import Nothing
from relay.provisioning.routes import ROUTES, Route
from tests.durability.process import Running, data, serving, write_settings
from tests.fakes.live import EMAIL, Live

from .conftest import Caller

URL = "https://relay.example"
TOO_LONG = (413, 414, 431)  # refused for its size, whatever else is wrong with it
CHECKS: list[Any] = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@dataclass
class Served:
    """A relay in a process of its own, a key of its API, and ids of what is there."""

    running: Running
    admin_key: str
    ids: dict[str, str]


async def test_the_description_is_served_and_covers_everything(relay: Live, api: Caller) -> None:
    answer = await api.call("GET", "/openapi.json", key="")
    described = {
        (method.upper(), path) for path, found in answer.value["paths"].items() for method in found
    }
    assert {(route.method, route.path) for route in ROUTES} <= described
    assert {("GET", "/v1/models"), ("GET", "/v1/models/{id}")} <= described
    for path in relayed(b"", ConversationHistory(None)):
        assert ("POST", path.decode()) in described
    ids = [one["operationId"] for found in answer.value["paths"].values() for one in found.values()]
    assert len(ids) == len(set(ids))


def test_the_description_is_the_same_each_time() -> None:
    assert openapi.document(URL) == openapi.document(URL)
    assert json.loads(openapi.document(URL))["servers"] == [{"url": URL}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("openapi")
    write_settings(folder, "http://127.0.0.1:9")
    person = data(folder, "user", "create", EMAIL)["id"]
    key = data(folder, "key", "create", "--user", EMAIL)["id"]
    scopes = [part for scope in SCOPES for part in ("--scope", scope)]
    admin = data(folder, "admin-key", "create", *scopes)["key"]
    with serving(folder) as running:
        yield Served(running, admin, {"people": person, "keys": key, "upstreams": "main"})


CASES = [
    pytest.param(route, mode, id=f"{route.method} {route.path} {mode.value}")
    for route in ROUTES
    for mode in GenerationMode
]


@pytest.mark.parametrize(("route", "mode"), CASES)
def test_answers_are_as_described(server: Served, route: Route, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(json.loads(openapi.document(URL)))
    schema.config.update(base_url=f"http://127.0.0.1:{server.running.port}")
    operation = schema[route.path][route.method]
    is_negative = mode is GenerationMode.NEGATIVE
    if is_negative and route.query is Nothing and route.body is None:
        pytest.skip("nothing of it can be wrong")
    there = server.ids.get(route.path.split("/")[3])

    @given(case=operation.as_strategy(generation_mode=mode), exists=st.booleans())
    @settings(
        max_examples=6,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def holds(case: Any, exists: bool) -> None:
        if exists and there is not None and not is_negative:
            case.path_parameters = dict.fromkeys(case.path_parameters, there)
        response = case.call(headers={"authorization": f"Bearer {server.admin_key}"})
        case.validate_response(response, checks=CHECKS)
        if is_negative and response.status_code not in TOO_LONG:
            case.validate_response(response, checks=[checks.negative_data_rejection])

    holds()


def test_no_answer_is_there_without_a_key(server: Served) -> None:
    schema = schemathesis.openapi.from_dict(json.loads(openapi.document(URL)))
    schema.config.update(base_url=f"http://127.0.0.1:{server.running.port}")
    for route in ROUTES:
        case = schema[route.path][route.method].Case(path_parameters={"id": "x", "name": "x"})
        response = case.call()
        assert response.status_code in (401, 429)
        case.validate_response(response, checks=CHECKS)
