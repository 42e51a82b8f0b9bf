"""The rules of the Messages API for a request: its headers, its fields, its model.

Pure: a parsed request in, the model that it names out, or a `Refusal` in the wording of the real
API, on which clients match and by which Claude Code degrades. Other rules have modules of their
own: `parameters`, `tools`, `conversation`, `schema`. A beta that is unknown but well formed is
accepted; an unknown field is not.
"""

import re
from typing import Any, Final

from relay.simulator import blocks, conversation, models, parameters, schema, tools
from relay.simulator.models import Model
from relay.simulator.refusal import Refusal, extra, invalid
from relay.simulator.seal import Seal

JSON = dict[str, Any]

_VERSIONS: Final = frozenset({b"2023-01-01", b"2023-06-01", b"2026-10-21"})
_DOCS: Final = "Please consult our documentation at https://docs.claude.com/en"

# Field of the body -> the families of betas, any of which allows it; () = always allowed.
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "model": (),
    "messages": (),
    "max_tokens": (),
    "stream": (),
    "system": (),
    "metadata": (),
    "thinking": (),
    "tools": (),
    "tool_choice": (),
    "temperature": (),
    "top_p": (),
    "top_k": (),
    "stop_sequences": (),
    "service_tier": (),
    "output_config": (),
    "cache_control": (),
    "container": (),
    "diagnostics": (),
    "inference_geo": (),
    "speed": (),
    "context_management": ("context-management", "compact"),
    "safeguards": ("dangerous-tool-use",),
    "mcp_servers": ("mcp-client",),
    "output_format": ("structured-outputs",),
    "compaction": ("compact",),
    "thread": ("message-threads",),
    "fallbacks": ("server-side-fallback",),
    "fallback_credit_token": ("fallback-credit",),
    "billing_policy": ("user-profiles-billing",),
}
_NO_COUNTING: Final = frozenset(
    {"max_tokens", "stream", "metadata", "temperature", "top_p", "top_k", "stop_sequences"}
)

_BETA: Final = re.compile(r"(?P<family>[a-z0-9]+(?:-[a-z0-9]+)*?)-20\d\d-?[01]\d-?[0-3]\d")


def version(value: bytes | None) -> None:
    """Check that `anthropic-version` has a known value.

    Raises:
        Refusal: 400.
    """
    if value in _VERSIONS:
        return
    if not value:
        raise invalid("anthropic-version: header is required")
    raise invalid(f'anthropic-version: "{value.decode("latin-1")}" is not a valid version')


def betas(value: bytes | None) -> frozenset[str]:
    """The families in an `anthropic-beta` header: the names without their dates.

    Raises:
        Refusal: 400, for a value that is malformed.
    """
    if not value:
        return frozenset()
    found = set()
    for item in value.decode("latin-1").split(","):
        name = item.strip()
        if not name:
            continue
        match = _BETA.fullmatch(name)
        if match is None:
            raise invalid(
                f"Unexpected value(s) `{name}` for the `anthropic-beta` header. "
                f"{_DOCS}/api/beta-headers or try again without the header."
            )
        found.add(match["family"])
    return frozenset(found)


def check(
    request: Any, betas: frozenset[str], seal: Seal, *, counting: bool = False, ga: bool = False
) -> Model:
    """The model that a valid request names.

    `counting`: a request to count_tokens, which has no max_tokens. `ga`: the version of the API
    in `anthropic-version` has system messages without a beta.

    Raises:
        Refusal: the real API would refuse the request.
    """
    if type(request) is not dict:
        raise invalid("Input should be a valid dictionary or object to extract fields from")
    for name in request:
        needed = _FIELDS.get(name)
        if needed is None or (needed and betas.isdisjoint(needed)):
            raise extra(name)
        if counting and name in _NO_COUNTING:
            raise extra(name)
    model = _find_model(request)
    if not counting:
        _check_max_tokens(request.get("max_tokens"), model, betas)
    stream = request.get("stream")
    if stream is not None and type(stream) is not bool:
        raise invalid("stream: Input should be a valid boolean")
    # The required fields are checked; a small request has no others.
    if len(request) > (2 if counting else 3):
        _check_optional(request, model, betas)
    messages = request.get("messages")
    if messages is None:
        raise invalid("messages: Field required")
    conversation.check(messages, request, model, betas, seal, ga=ga)
    return model


def _find_model(request: JSON) -> Model:
    name = request.get("model")
    if type(name) is not str:
        raise invalid(
            "model: Field required" if name is None else "model: Input should be a valid string"
        )
    if not name:
        raise invalid("model: String should have at least 1 character")
    model = models.find(name)
    if model is None:
        raise Refusal(404, f"model: {name}")
    return model


def _check_max_tokens(value: object, model: Model, betas: frozenset[str]) -> None:
    if type(value) is not int:
        if value is None:
            raise invalid("max_tokens: Field required")
        raise invalid("max_tokens: Input should be a valid integer")
    if value < 0:
        raise invalid("max_tokens: must be greater than or equal to 0")
    if value > model.max_output and "output-300k" not in betas and "output-128k" not in betas:
        raise invalid(
            f"max_tokens: {value} > {model.max_output}, which is the maximum allowed number of "
            f"output tokens for {model.id}"
        )


def _check_optional(request: JSON, model: Model, betas: frozenset[str]) -> None:
    if request.get("thread") is not None:
        # Nothing is stored here; after this error the SDKs send the complete history instead.
        raise Refusal(
            400,
            "thread: this request cannot be held as a thread",
            {"error_code": "thread_unsupported_request", "unsupported": ["storage"]},
        )
    if "system" in request:
        blocks.check_system(request["system"], betas)
    if "metadata" in request:
        parameters.check_metadata(request["metadata"])
    if "tools" in request or "tool_choice" in request:
        tools.check(request.get("tools"), betas)
        tools.check_choice(request.get("tool_choice"), request.get("tools"))
    thinking = request.get("thinking")
    if thinking is not None:
        parameters.check_thinking(thinking, request, model, betas)
    if "temperature" in request or "top_p" in request or "top_k" in request:
        parameters.check_sampling(request, model)
    if "output_config" in request:
        parameters.check_output_config(request["output_config"], model, betas)
    if request.get("tools") or "output_config" in request or "output_format" in request:
        schema.check(request)
    if request.get("context_management") is not None:
        parameters.check_context_management(request["context_management"], request, betas)
    if request.get("stop_sequences") is not None:
        parameters.check_stop_sequences(request["stop_sequences"])
    tier = request.get("service_tier")
    if tier is not None and tier not in ("auto", "standard_only"):
        raise invalid("service_tier: Input should be 'auto' or 'standard_only'")
    if "safeguards" in request and type(request["safeguards"]) is not list:
        raise invalid("safeguards: Input should be a valid list")
