"""Any conversation of items is accepted by the API, and continues as it began."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.errors import RelayError
from relay.translate.responses import request
from tests.translate.chat.test_request import CLAUDE, JSON, TARGET_MODELS, accepted
from tests.translate.responses.test_request import OWN, octets, read, response_with_echo, thought

properties = settings(suppress_health_check=[HealthCheck.too_slow])

texts = st.sampled_from(["Hello", " ", "", 'a "b"\n', "日本 🌍"])
numbers = st.sampled_from(["a", "b", "c", "call|1"])
names = st.sampled_from(["f", "apply_patch", "t"])
PNG = "data:image/png;base64,iVBORw0KGgo="


def item(kind: str, **members: Any) -> Any:
    """Items of one type, whose members are strategies."""
    return st.fixed_dictionaries({"type": st.just(kind), **members})


parts = st.lists(
    st.one_of(
        item("input_text", text=texts),
        item("input_image", image_url=st.just(PNG)),
        item("refusal", refusal=texts),
    ),
    max_size=3,
)
outputs = st.one_of(texts, parts)
arguments = st.sampled_from(['{"x":1}', "", "{", "[]", '{"a":{"b":"c"}}'])
sealed = st.sampled_from(
    [thought("one"), thought("two"), thought("far", "glm"), "gAAAAforged", "rly1.AAAA", None]
)
items = st.one_of(
    item("message", role=st.just("user"), content=st.one_of(texts, parts)),
    item("message", role=st.sampled_from(["developer", "system"]), content=texts),
    item(
        "message",
        role=st.just("assistant"),
        content=st.lists(item("output_text", text=texts), max_size=2),
    ),
    item(
        "reasoning",
        summary=st.lists(item("summary_text", text=texts), max_size=2),
        encrypted_content=sealed,
    ),
    item("function_call", call_id=numbers, name=names, arguments=arguments),
    item(
        "function_call", call_id=numbers, name=names, namespace=st.just("ns"), arguments=arguments
    ),
    item("function_call_output", call_id=numbers, output=outputs),
    item("custom_tool_call", call_id=numbers, name=names, input=texts),
    item("custom_tool_call_output", call_id=numbers, output=outputs),
    item(
        "local_shell_call",
        call_id=numbers,
        action=st.just({"type": "exec", "command": ["ls"], "env": {}}),
    ),
    item("local_shell_call_output", id=numbers, output=texts),
    item("shell_call", call_id=numbers, action=st.just({"commands": ["ls"]})),
    item(
        "shell_call_output",
        call_id=numbers,
        output=st.just([{"stdout": "x", "stderr": "", "outcome": {"type": "timeout"}}]),
    ),
    item("apply_patch_call_output", call_id=numbers, status=st.just("completed")),
    item("tool_search_call", call_id=numbers, arguments=st.just({"query": "x"})),
    item("tool_search_output", call_id=numbers, tools=st.just([{"type": "function", "name": "g"}])),
    item("additional_tools", tools=st.just([{"type": "custom", "name": "h"}])),
    item("compaction", encrypted_content=st.sampled_from(["forged", "rly1."])),
    item("web_search_call", status=st.just("completed")),
    item("computer_call", call_id=st.just(5), action=st.just({"a": 1})),
)
conversations = st.lists(items, max_size=12)
TOOLS = [
    {"type": "function", "name": "f"},
    {"type": "custom", "name": "apply_patch"},
    {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "t"}]},
]
OPENING: JSON = {"type": "message", "role": "user", "content": "Begin."}


@properties
@given(conversations, st.booleans(), st.sampled_from([None, "low", "high", "none"]))
def test_each_model_accepts_every_conversation(
    history: list[JSON], offered: bool, effort: str | None
) -> None:
    fields = {"input": [OPENING, *history], "reasoning": {"effort": effort}}
    asked = read({**fields, "tools": TOOLS} if offered else fields)
    for name in CLAUDE:
        accepted(
            asked.builder.octets(TARGET_MODELS[name], breakpoints=True, user="u"), asked.builder
        )
    json.loads(asked.builder.octets(TARGET_MODELS["glm"], breakpoints=False, user=None))


@properties
@given(conversations, conversations)
def test_a_conversation_that_continues_keeps_its_turns(
    history: list[JSON], more: list[JSON]
) -> None:
    """Prompt caches depend on it. The last turn may still grow, and calls without an output may
    still get one."""
    answer = {"type": "message", "role": "assistant",
            "content": [{"type": "output_text", "text": "So far."}]}  # fmt: skip
    answered = [
        {"type": f"{one['type']}_output", "call_id": one["call_id"], "output": "done"}
        for one in history
        if one["type"] in ("function_call", "custom_tool_call", "shell_call")
    ]
    # Ids may be reused later, for other calls.
    later = [one for one in more if not {"call_id", "id"} & one.keys()]
    later = [one for one in later if one["type"] not in ("additional_tools", "message")]
    first = [OPENING, *history, *answered, OPENING]
    for name in ("opus", "haiku"):
        target_model = TARGET_MODELS[name]
        before, after = (
            json.loads(
                read({"input": given, "tools": TOOLS}).builder.octets(
                    target_model, breakpoints=False, user=None
                )
            )
            for given in (first, [*first, answer, *later, OPENING])
        )
        turns = before["messages"]
        assert after["messages"][: len(turns)] == turns
        assert before.get("system") == after.get("system")


any_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just(1.5), texts, names),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "name", "tools", "format", "call_id", "output",
                 "input", "action", "summary", "schema", "effort", "arguments", "image_url"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip
FIELDS = ["input", "instructions", "tools", "tool_choice", "reasoning", "text", "metadata",
          "max_output_tokens", "temperature", "parallel_tool_calls", "truncation", "user",
          "previous_response_id", "max_tool_calls", "stream", "store", "background"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS), any_json, max_size=4))
def test_any_request_is_read_or_refused(fields: JSON) -> None:
    body = octets({"model": "m", "input": "Hello", **fields})
    refused = []
    for reader in (request.read, request.read_compaction):
        try:
            asked = reader(body, OWN)
            for target_model in TARGET_MODELS.values():
                json.loads(asked.builder.octets(target_model, breakpoints=True, user="u"))
            assert response_with_echo(asked) if asked.echo else True
        except RelayError as refusal:
            refused.append(refusal)
    for error in refused:
        assert error.kind.status == 400
        assert error.param


@properties
@given(st.lists(st.one_of(items, st.just(OPENING)), max_size=8))
def test_nothing_forged_goes_upstream(history: list[JSON]) -> None:
    forged = [
        {**one, "encrypted_content": "CANARY" + str(one.get("encrypted_content"))}
        if "encrypted_content" in one
        else one
        for one in history
    ]
    builder = read({"input": [OPENING, *forged]}).builder
    for target_model in TARGET_MODELS.values():
        made = builder.octets(target_model, breakpoints=False, user=None)
        assert b"CANARY" not in made
        if target_model.family == "anthropic":
            assert b'"thinking"' not in made
            assert b'"redacted_thinking"' not in made


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_a_value_nested_too_deeply_is_refused(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    for field in (b'"input":%b', b'"input":"x","tools":%b', b'"input":[%b]'):
        with pytest.raises(RelayError):
            request.read(b'{"model":"m",' + field % nested + b"}", OWN)
