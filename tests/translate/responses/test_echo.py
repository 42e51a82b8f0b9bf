"""An answer repeats a request within bounds, however long the request is."""

import json
from typing import Any

import msgspec
import pytest

from relay.errors import RelayError
from relay.translate.responses import request
from relay.translate.responses.seal import Seal
from tests.fakes.memory import peak_octets

OWN = Seal(b"k" * 32, "usr_1")
MIB = 1024 * 1024
LONG = "x" * 2 * MIB
FIELDS: dict[str, Any] = {
    "instructions": LONG,
    "tools": [{"type": "tool_search"}] * 20_000,
    "prompt_cache_key": LONG,
    "safety_identifier": LONG,
    "reasoning": {"effort": "low", "x": [1] * 500_000},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"description": LONG}}},
}


def read(fields: dict[str, Any]) -> request.ResponsesRequest:
    return request.read(json.dumps({"model": "m", "input": "x", **fields}).encode(), OWN)


def echo(fields: dict[str, Any]) -> dict[str, Any]:
    """What an answer repeats."""
    members: dict[str, Any] = json.loads(b"{" + read(fields).echo[1:] + b"}")
    return members


@pytest.mark.parametrize("name", FIELDS)
def test_a_very_long_field_is_not_repeated(name: str) -> None:
    plain = echo({})
    long = echo({name: FIELDS[name], "metadata": {"a": "b"}})
    assert len(json.dumps(long)) < 300 * 1024
    assert long[name] == plain[name]
    assert long["metadata"] == {"a": "b"}


def test_all_long_fields_together_are_not_repeated() -> None:
    assert len(read({name: value for name, value in FIELDS.items() if name != "tools"}).echo) < 2048


def test_the_fields_of_an_agent_are_repeated() -> None:
    tool = {"type": "function", "name": "f", "description": "d" * 1000, "parameters": {}}
    tools = [{**tool, "name": f"f{number}", "strict": True} for number in range(100)]
    fields = {"instructions": "i" * 60_000, "tools": tools}
    long = {**fields, "input": LONG}  # a long conversation changes nothing
    for one in (fields, long):
        shown = echo(one)
        assert (shown["instructions"], shown["tools"]) == (fields["instructions"], tools)


def test_reading_a_long_field_takes_little_memory() -> None:
    body = b'{"model":"m","input":"x","reasoning":{%b}}' % b",".join(
        b'"%d":1' % number for number in range(500_000)
    )
    assert peak_octets(lambda: request.read(body, OWN)) < len(body) + 4 * MIB


LARGEST = {f"{number:064}": "é" * 512 for number in range(16)}


def test_metadata_within_openais_bounds_is_repeated() -> None:
    assert echo({"metadata": LARGEST})["metadata"] == LARGEST
    assert echo({"metadata": None})["metadata"] == {}


@pytest.mark.parametrize(
    "metadata",
    [
        {**LARGEST, "one more": ""},
        {"k" * 65: ""},
        {"k": "v" * 513},
        {str(number): "v" for number in range(100_000)},
        {"k": LONG},
    ],
    ids=["pairs", "key", "value", "very many pairs", "very long"],
)
def test_metadata_beyond_openais_bounds_is_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(RelayError) as refused:
        read({"metadata": metadata})
    assert refused.value.kind.status == 400
    assert refused.value.param == "metadata"
    assert "16 pairs" in refused.value.message


@pytest.mark.parametrize(("length", "opened"), [(1000, True), (4 * MIB, False)])
def test_a_seal_is_opened_up_to_a_length(length: int, opened: bool) -> None:
    text = b'"%b"' % (b"t" * length)
    sealed = msgspec.Raw(OWN.summary(text))
    assert OWN.opened_summary(sealed) == (msgspec.Raw(text) if opened else None)
