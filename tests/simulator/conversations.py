"""Messages, blocks and conversations for the rules of the simulator."""

from typing import Any

from relay.simulator import strict
from relay.simulator.seal import Seal

from .samples import JSON, plain

SEAL = Seal("test")


def check(request: Any, betas: bytes = b"", *, counting: bool = False, ga: bool = False) -> None:
    strict.check(request, strict.betas(betas), SEAL, counting=counting, ga=ga)


def conversation(*messages: JSON, **more: Any) -> JSON:
    return plain(**more) | {"messages": list(messages)}


def user(*content: Any) -> JSON:
    return {"role": "user", "content": list(content)}


def assistant(*content: Any) -> JSON:
    return {"role": "assistant", "content": list(content)}


def text(words: str) -> JSON:
    return {"type": "text", "text": words}


def call(number: str, **more: Any) -> JSON:
    return {"type": "tool_use", "id": number, "name": "Bash", "input": {"command": "ls"}, **more}


def result(number: str, **more: Any) -> JSON:
    return {"type": "tool_result", "tool_use_id": number, "content": "done", **more}


def image(**source: Any) -> JSON:
    return {"type": "image", "source": source}


def thought(words: str, signature: str | None = None) -> JSON:
    signed = SEAL.sign(words, words) if signature is None else signature
    return {"type": "thinking", "thinking": words, "signature": signed}


HI = {"role": "user", "content": "hi"}
SYSTEM = {"role": "system", "content": "be brief"}
MID = b"mid-conversation-tool-changes-2026-07-01"
