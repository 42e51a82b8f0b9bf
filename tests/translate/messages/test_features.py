"""Features are found in a body however they are spelled, and nowhere else."""

import json
import time
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.config.values import Feature
from relay.translate.messages.features import FEATURES, Features

BODY = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


def part(**content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [content]}]}


USED: list[tuple[str, str, dict[str, Any]]] = [
    ("fast", "speed", {"speed": "fast"}),
    ("inference_geo", "inference_geo", {"inference_geo": "us"}),
    ("service_tier", "service_tier", {"service_tier": "priority"}),
    ("threads", "thread", {"thread": {"type": "continue", "previous_message_id": "msg_1"}}),
    ("containers", "container", {"container": "container_1"}),
    ("containers", "container", {"container": {"id": "c", "skills": [{}] * 50}}),
    ("mcp", "mcp_servers", {"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}),
    ("fallbacks", "fallbacks", {"fallbacks": [{"model": "claude-opus-4-8"}]}),
    ("compaction", "compaction", {"compaction": {"type": "request"}}),
    ("compaction", "tools", {"context_management": {"edits": [{"type": "compact_20260112"}]}}),
    ("web_search", "tools", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ("web_fetch", "tools", {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}),
    ("code_execution", "tools", {"tools": [{"name": "c", "type": "code_execution_20250825"}]}),
    ("advisor", "tools", {"tools": [{"type": "advisor_20260301", "name": "advisor"}]}),
    ("files", "file_id", part(type="document", source={"type": "file", "file_id": "file_1"})),
    ("1h_cache", "cache_control.ttl", part(text="x", cache_control={"ttl": "1h"})),
]
IDS = [f"{feature}-{number}" for number, (feature, _, _) in enumerate(USED)]
UNBOUNDED = [
    part(type="document", source={"type": "base64", "media_type": "application/pdf", "data": "J"}),
    part(type="document", source={"type": "text", "data": "x"}),
    part(type="image", source={"type": "url", "url": "https://x/y.png"}),
    part(type="container_upload", file_id="file_1"),
    part(type="input_file", file_data="data:application/pdf;base64,J"),
    part(type="file", file={"file_data": "J"}),
    part(type="input_image", image_url="https://x/y.png"),
    part(type="image_url", image_url={"url": "https://x/y.png"}),
    *[more for feature, _, more in USED
      if feature not in ("fast", "inference_geo", "service_tier", "1h_cache")],
]  # fmt: skip


def encoded(**more: Any) -> bytes:
    return json.dumps({**BODY, **more}).encode()


def test_every_feature_can_be_excluded() -> None:
    assert set(FEATURES) == set(get_args(Feature))
    assert {feature for feature, _, _ in USED} | {"long_context"} == set(FEATURES)


@pytest.mark.parametrize(("feature", "field", "more"), USED, ids=IDS)
def test_a_feature_is_found_with_its_field(feature: str, field: str, more: dict[str, Any]) -> None:
    found = Features(encoded(**more))
    assert found.used[feature] == field
    assert not found.escaped
    indented = json.dumps({**BODY, **more}, indent="\t").encode()
    assert Features(indented).used == found.used


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"speed": "standard", "service_tier": "auto", "inference_geo": "global"},
        {"speed": None, "thread": None, "container": None, "mcp_servers": [], "fallbacks": []},
        {"service_tier": "standard_only"},
        {"metadata": {"speed": "fast", "container": "x"}},
        {"tools": [{"name": "go", "input_schema": {"properties": {"speed": {"type": "string"}}}}]},
        {"tools": [{"name": "f", "input_schema": {"properties": {"file_id": {"type": "string"}}}}]},
        {"tools": [{"name": "web_search", "description": "mine", "input_schema": {}}]},
        {"tools": [{"type": "bash_20250124", "name": "bash"}]},
        {
            "messages": [
                {"role": "user", "content": '{"speed":"fast","type":"web_search_20250305"}'}
            ]
        },
        {"messages": [{"role": "user", "content": "\\u0061 é \u2028 <&> \x7f"}]},
        part(type="web_search_tool_result", tool_use_id="srvtoolu_1", content=[]),
        part(type="server_tool_use", name="web_search", input={}),
        part(text="x", cache_control={"ttl": "5m"}),
    ],
    ids=lambda more: ",".join(more) + str(len(str(more))),
)
def test_what_only_looks_like_a_feature_is_none(more: dict[str, Any]) -> None:
    for octets in (encoded(**more), json.dumps({**BODY, **more}, ensure_ascii=False).encode()):
        found = Features(octets)
        assert found.used == {}
        assert not found.repeated


@pytest.mark.parametrize("more", UNBOUNDED, ids=lambda more: str(more)[:60])
def test_content_of_unknown_length_may_fill_the_context(more: dict[str, Any]) -> None:
    assert Features(encoded(**more)).fills_context


def test_plain_text_and_images_do_not_fill_the_context() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "J"}}
    found = Features(encoded(messages=[{"role": "user", "content": [image, image]}]))
    assert (found.fills_context, found.images) == (False, 2)
    found = Features(encoded(**part(type="input_image", image_url="data:image/png;base64,J")))
    assert not found.fills_context
    assert found.images >= 1


def test_long_context_is_found_by_its_beta_or_its_length() -> None:
    assert Features(encoded(), b"a, Context-1M-2025-08-07").used == {
        "long_context": "anthropic-beta"
    }
    assert Features(encoded(system="x" * 800_001)).used == {"long_context": "messages"}


def test_translated_bodies_are_read_in_their_own_terms() -> None:
    octets = encoded(web_search_options={}, service_tier="priority", speed="fast")
    assert Features(octets, translated=True).used == {"web_search": "web_search_options"}
    assert Features(encoded(web_search_options=None), translated=True).used == {}
    for kind in ("web_search", "web_search_preview", "web_search_preview_2025_03_11"):
        octets = encoded(tools=[{"type": kind}]) + b'{"a":"kept turn"}'
        assert Features(octets, translated=True).used == {"web_search": "tools"}


# --- spellings -----------------------------------------------------------------------


@st.composite
def spelled(draw: st.DrawFn, octets: bytes) -> bytes:
    """The same JSON with some letters of its strings as escapes, in either case of hex."""
    written = bytearray()
    in_string = False
    rate = draw(st.sampled_from([1, 2, 5]))
    choose = draw(st.randoms(use_true_random=False))
    for code in octets:
        letter = bytes([code])
        if letter == b'"':
            in_string = not in_string
        if in_string and (letter.isalnum() or letter == b"_") and choose.randrange(rate) == 0:
            letter = b"\\u%04x" % code if choose.random() < 0.5 else b"\\u%04X" % code
        written += letter
    return bytes(written)


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize(("feature", "_field", "more"), USED, ids=IDS)
@given(data=st.data())
@settings(max_examples=25)
def test_no_escapes_hide_a_feature(
    feature: str, _field: str, more: dict[str, Any], data: st.DataObject
) -> None:
    octets = encoded(**more)
    octets = data.draw(spelled(octets))
    assert json.loads(octets) == {**BODY, **more}
    assert feature in Features(octets).used


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize("more", UNBOUNDED, ids=lambda more: str(more)[:60])
@given(data=st.data())
@settings(max_examples=25)
def test_no_escapes_hide_content_of_unknown_length(
    more: dict[str, Any], data: st.DataObject
) -> None:
    assert Features(data.draw(spelled(encoded(**more)))).fills_context


@pytest.mark.parametrize(
    "octets",
    [
        b'{"speed":"fast","speed":"standard"}',
        b'{"speed":"standard","speed":"fast"}',
        b'{"sp\\u0065ed":"fast","speed":"standard"}',
        b'{"speed":"standard","sp\\u0065ed":"fast"}',
        b'{"Speed":"fast"}',
        b'{"SPEED":"FAST"}',
        b'{"\\u0053peed":"fast"}',
        b'{ "speed"\n:\t"fast"}',
        b'{"speed":"\\u0066ast"}',
        b'{"a":"\\\\","\\u0073peed":"fast"}',
        b'{"a":"\\\\u0061","\\u0073peed":"fast"}',
        b'{"a":"\\"","speed":"fast"}',
        b'{"speed":"\\ud83d"}',
        b'{"speed":"\xff"}',
        b'{"speed":{"value":"' + b"x" * 100 + b'"}}',
    ],
)
def test_no_repetition_or_case_hides_a_feature(octets: bytes) -> None:
    assert "fast" in Features(octets).used


def test_a_body_that_cannot_be_read_counts_as_using_everything() -> None:
    assert set(Features(b'{"speed":').used) == set(FEATURES)
    flood = b'{"a":"' + b"\\u0061" * 20_001 + b'"}'
    found = Features(flood)
    assert set(found.used) == set(FEATURES)
    assert set(found.used.values()) == {"escaped letters"}


@pytest.mark.alone
@pytest.mark.parametrize(
    "piece",
    [
        b"\\\\",
        b"\\\\u0061",
        b"\\u00e9",
        b"\\u0061",
        b"\\u003c",
        b'\\"',
        b"x",
        "é".encode(),
        "ı".encode(),
        b"\\u0131",
        b"\\\\u017f",
        b"_url",
    ],
    ids=repr,
)
def test_looking_is_linear_and_quick(piece: bytes) -> None:
    spent = []
    for size in (2**19, 2**20):
        octets = b'{"a":"' + piece * (size // len(piece)) + b'"}'
        started = time.process_time()
        Features(octets)
        spent.append(time.process_time() - started)
    assert spent[1] < 0.05
    assert spent[1] < 4 * spent[0] + 0.005


@pytest.mark.parametrize("kind", ["web_search_2025_08_26", "web_search_preview", "web_searchX"])
def test_every_search_that_is_translated_is_found(kind: str) -> None:
    body = b'{"model":"m","input":"x","tools":[{"type":"%b"}]}' % kind.encode()
    assert "web_search" in Features(body, translated=True).used
