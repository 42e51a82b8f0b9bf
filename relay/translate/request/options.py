"""How a request wants its answer: length, chance, thinking, shape, and what a model makes of it.

Models take different things (`config.Capabilities`), and no caller of another dialect knows which.
So
a wish that cannot be had as it is becomes the nearest one; only where that would be a broken
promise is it refused. What the conversation says is not looked at.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from relay.config import Capabilities
from relay.translate.invalid import invalid_field
from relay.translate.raw_json import NOTHING, encode_string
from relay.translate.request import json_schema

# What may be asked for, and what is meant by it: a level of effort, and a budget where models
# have those (docs: build-with-claude/extended-thinking).
_LEVELS: Final = ("low", "medium", "high", "xhigh", "max")
_BUDGETS: Final = {"low": 2048, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 49152}
_LEAST_BUDGET: Final = 1024
EFFORTS: Final = ("none", "minimal", *_LEVELS)

_ADAPTIVE: Final = b'{"type":"adaptive","display":"summarized"}'
_DISABLED: Final = b'{"type":"disabled"}'
_IN_JSON: Final = (
    "Answer with one JSON object and nothing else: no words around it, and no code fences."
)
_BY_SCHEMA: Final = (
    "Answer with JSON that fits the following JSON schema and nothing else: no words around it, "
    "and no code fences."
)


class _Kind(msgspec.Struct, frozen=True):
    type: Any = None


_kind = msgspec.json.Decoder(_Kind).decode


@dataclass(slots=True)
class ResponseFormat:
    """What form the answer is to have. `schema` is None for just any JSON object."""

    schema: bytes | None = None
    strict: bool = False
    param: str = "response_format"  # where the caller has put it


@dataclass(slots=True, kw_only=True)
class GenerationOptions:
    """What a caller said of it; the ranges have been checked."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    effort: str | None = None  # one of EFFORTS
    default_thinking: bool = False  # in the model's own way, if no effort is told
    thinking: msgspec.Raw = field(default_factory=lambda: NOTHING)  # the API's own object
    response_format: ResponseFormat | None = None

    def render(
        self,
        capabilities: Capabilities,
        most: int,
        *,
        thinking_excluded: bool,
        counting: bool = False,
    ) -> tuple[bytes, bytes]:
        """The members of the request, each after a comma, and an instruction for the model.

        Args:
            most: output tokens that an answer may have.
            thinking_excluded: the conversation allows no thinking now.
            counting: the request asks how many tokens it has, and may say nothing of its answer.

        Raises:
            RelayError: 400, the model cannot promise what must be promised.
        """
        limit = most if self.max_tokens is None else min(self.max_tokens, most)
        out = [] if counting else [b',"max_tokens":%d' % limit]
        if self.stop and not counting:
            out.append(b',"stop_sequences":' + msgspec.json.encode(self.stop))
        thinks = False
        if self.thinking is not NOTHING:
            out += (b',"thinking":', self.thinking)
            thinks = _kind(self.thinking).type in ("enabled", "adaptive")
        elif self.effort is not None or self.default_thinking:
            thinking = self._thinking(capabilities, limit, thinking_excluded=thinking_excluded)
            thinks = thinking not in (b"", _DISABLED)
            if thinking:
                out += (b',"thinking":', thinking)
        if not counting:
            out.append(self._sampling(capabilities, thinks=thinks))
        shape, instruction = self._shaped(capabilities)
        effort = self._effort(capabilities)
        if effort or shape:
            comma = b"," if effort and shape else b""
            out += (b',"output_config":{', effort, comma, shape, b"}")
        return b"".join(out), instruction

    def _thinking(
        self, capabilities: Capabilities, limit: int, *, thinking_excluded: bool
    ) -> bytes:
        """The `thinking` that the effort means to this model; empty: none is asked for."""
        if self.effort == "none":
            return b"" if capabilities.thinking == "none" else _DISABLED
        if thinking_excluded or capabilities.thinking == "none":
            return b""
        if capabilities.thinking == "adaptive":
            return _ADAPTIVE
        budget = min(_BUDGETS[self._level()], limit // 2)
        if budget < _LEAST_BUDGET:
            return b""
        return b'{"type":"enabled","budget_tokens":%d}' % budget

    def _level(self) -> str:
        return "low" if self.effort == "minimal" else self.effort or "medium"

    def _effort(self, capabilities: Capabilities) -> bytes:
        """The effort that is nearest among those that the model knows, and not more if it can."""
        if self.effort in (None, "none") or not capabilities.efforts:
            return b""
        lower = _LEVELS[: _LEVELS.index(self._level()) + 1]
        known = [level for level in lower if level in capabilities.efforts]
        nearest = known[-1] if known else capabilities.efforts[0]
        return b'"effort":"%b"' % nearest.encode()

    def _sampling(self, capabilities: Capabilities, *, thinks: bool) -> bytes:
        """Temperature and the like, as far as the model takes them.

        None of them goes with thinking (docs: build-with-claude/extended-thinking), but for the
        default temperature and a top_p from 0.95 on.
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
        told = (("temperature", temperature), ("top_p", top_p), ("top_k", top_k))
        return b"".join(
            b',"%b":%b' % (name.encode(), msgspec.json.encode(value))
            for name, value in told
            if value is not None
        )

    def _shaped(self, capabilities: Capabilities) -> tuple[bytes, bytes]:
        """The `format` that the answer is held to, or what the model is told instead."""
        shape = self.response_format
        if shape is None:
            return b"", b""
        if shape.schema is None:
            return b"", encode_string(_IN_JSON)
        held = json_schema.constrain(shape.schema) if capabilities.structured else None
        if held is not None:
            return b'"format":{"type":"json_schema","schema":%b}' % held, b""
        if shape.strict:
            why = "such a schema" if capabilities.structured else "a schema"
            raise invalid_field(
                shape.param,
                f"this model cannot be held to {why}; leave out `strict` to have it told instead",
            )
        return b"", encode_string(f"{_BY_SCHEMA}\n\n{shape.schema.decode()}")
