"""Decides how the generation options of a request are written for one model.

Models support different options (`config.Capabilities`), and a caller of another dialect cannot
know which. An option that the model lacks becomes the nearest one; it is refused only where that
would break a promise. Must not know the conversation.
"""

from dataclasses import dataclass, field
from typing import Final

import msgspec

from relay.config import Capabilities
from relay.translate.invalid import invalid_field
from relay.translate.raw_json import NOTHING, Octets, encode_string
from relay.translate.request import json_schema
from relay.translate.request.fields import TypeOnly

# The levels of effort, and the budget of each, in tokens, for models that think by budget
# (Anthropic API docs, Extended thinking).
_LEVELS: Final = ("low", "medium", "high", "xhigh", "max")
_BUDGETS: Final = {"low": 2048, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 49152}
_MIN_BUDGET: Final = 1024
EFFORTS: Final = ("none", "minimal", *_LEVELS)

_ADAPTIVE: Final = b'{"type":"adaptive","display":"summarized"}'
_DISABLED: Final = b'{"type":"disabled"}'
_JSON_INSTRUCTION: Final = (
    "Answer with one JSON object and nothing else: no words around it, and no code fences."
)
_SCHEMA_INSTRUCTION: Final = (
    "Answer with JSON that fits the following JSON schema and nothing else: no words around it, "
    "and no code fences."
)


_decode_type: Final = msgspec.json.Decoder(TypeOnly).decode


@dataclass(slots=True)
class ResponseFormat:
    """The format of the answer. `schema` is None for any JSON object."""

    schema: bytes | None = None
    strict: bool = False
    param: str = "response_format"  # the field of the request


@dataclass(slots=True, kw_only=True)
class GenerationOptions:
    """The options that a caller has set; their ranges have been checked."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    effort: str | None = None  # one of EFFORTS
    default_thinking: bool = False  # think even if `effort` is None
    # In the Messages API's own form; overrides `effort`.
    thinking: msgspec.Raw = field(default_factory=lambda: NOTHING)
    response_format: ResponseFormat | None = None

    def render(
        self,
        capabilities: Capabilities,
        max_tokens: int,
        *,
        thinking_excluded: bool,
        counting: bool = False,
    ) -> tuple[bytes, bytes]:
        """The members of the request, each after a comma, and an instruction (may be empty).

        Args:
            max_tokens: the most output tokens in an answer.
            thinking_excluded: the conversation does not allow thinking in this answer.
            counting: for `count_tokens`, which accepts no options of the answer.

        Raises:
            RelayError: 400, the model cannot keep to the schema, and it is `strict`.
        """
        limit = max_tokens if self.max_tokens is None else min(self.max_tokens, max_tokens)
        out: list[Octets] = [] if counting else [b',"max_tokens":%d' % limit]
        if self.stop and not counting:
            out.append(b',"stop_sequences":' + msgspec.json.encode(self.stop))
        thinks = False
        if self.thinking is not NOTHING:
            out += (b',"thinking":', self.thinking)
            thinks = _decode_type(self.thinking).type in ("enabled", "adaptive")
        elif self.effort is not None or self.default_thinking:
            thinking = self._thinking(capabilities, limit, thinking_excluded=thinking_excluded)
            thinks = thinking not in (b"", _DISABLED)
            if thinking:
                out += (b',"thinking":', thinking)
        if not counting:
            out.append(self._sampling(capabilities, thinks=thinks))
        format, instruction = self._format(capabilities)
        effort = self._effort(capabilities)
        if effort or format:
            comma = b"," if effort and format else b""
            out += (b',"output_config":{', effort, comma, format, b"}")
        return b"".join(out), instruction

    def _thinking(
        self, capabilities: Capabilities, limit: int, *, thinking_excluded: bool
    ) -> bytes:
        """The `thinking` object for the effort; empty for none."""
        if self.effort == "none":
            return b"" if capabilities.thinking in ("none", "always") else _DISABLED
        if thinking_excluded or capabilities.thinking == "none":
            return b""
        if capabilities.thinking in ("adaptive", "always"):
            return _ADAPTIVE
        budget = min(_BUDGETS[self._level()], limit // 2)
        if budget < _MIN_BUDGET:
            return b""
        return b'{"type":"enabled","budget_tokens":%d}' % budget

    def _level(self) -> str:
        return "low" if self.effort == "minimal" else self.effort or "medium"

    def _effort(self, capabilities: Capabilities) -> bytes:
        """The nearest effort that the model knows; a lower one rather than a higher one."""
        if self.effort in (None, "none") or not capabilities.efforts:
            return b""
        lower = _LEVELS[: _LEVELS.index(self._level()) + 1]
        known = [level for level in lower if level in capabilities.efforts]
        nearest = known[-1] if known else capabilities.efforts[0]
        return b'"effort":"%b"' % nearest.encode()

    def _sampling(self, capabilities: Capabilities, *, thinks: bool) -> bytes:
        """The sampling parameters that the model accepts.

        With thinking it accepts none but the default temperature and a top_p from 0.95 on
        (Anthropic API docs, Extended thinking).
        """
        if capabilities.sampling == "none":
            return b""
        temperature, top_p, top_k = self.temperature, self.top_p, self.top_k
        if temperature is not None:
            temperature = min(temperature, 1)
        if thinks:
            temperature = temperature if temperature == 1 else None
            top_p = top_p if top_p is not None and top_p >= 0.95 else None
            top_k = None
        if capabilities.sampling == "one" and temperature is not None:
            top_p = None
        members = (("temperature", temperature), ("top_p", top_p), ("top_k", top_k))
        return b"".join(
            b',"%b":%b' % (name.encode(), msgspec.json.encode(value))
            for name, value in members
            if value is not None
        )

    def _format(self, capabilities: Capabilities) -> tuple[bytes, bytes]:
        """The `format` of the answer, or an instruction to the model in its place."""
        wanted = self.response_format
        if wanted is None:
            return b"", b""
        if wanted.schema is None:
            return b"", encode_string(_JSON_INSTRUCTION)
        schema = json_schema.constrain(wanted.schema) if capabilities.structured else None
        if schema is not None:
            return b'"format":{"type":"json_schema","schema":%b}' % schema, b""
        if wanted.strict:
            why = "such a schema" if capabilities.structured else "a schema"
            raise invalid_field(
                wanted.param,
                f"this model cannot be held to {why}; leave out `strict` to have it told instead",
            )
        return b"", encode_string(f"{_SCHEMA_INSTRUCTION}\n\n{wanted.schema.decode()}")
