"""The rules of a conversation: roles, order of blocks, tool ids and their pairing, signatures.

Pure. Decides which conversations the API refuses. Consecutive messages of one role count as one
turn, as at the real API. A message of role "system" stands between turns; it needs a beta header
of its family, or a version of the API that has such messages.
"""

import re
from typing import Any, Final

from relay.simulator import blocks, media
from relay.simulator.models import Model
from relay.simulator.refusal import extra, invalid, unknown_tag
from relay.simulator.seal import Seal

JSON = dict[str, Any]

_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
# Field of a system message -> the betas, any of which allows it.
_SYSTEM_FIELDS: Final = {
    "output_config": ("per-turn-control", "mid-conversation-output-config"),
    "clear_at": ("mid-conversation-system-clear-at", "per-turn-control"),
}
_MESSAGE_FIELDS: Final = frozenset({"role", "content"})
_ASSISTANT_ONLY: Final = frozenset({"thinking", "redacted_thinking", "tool_use", "server_tool_use"})
_RESULT_BLOCKS: Final = ("document", "image", "search_result", "text", "tool_reference")
_MAX_MESSAGES: Final = 100_000


def check(
    messages: Any, request: JSON, model: Model, betas: frozenset[str], seal: Seal, *, ga: bool
) -> None:
    """Check a conversation; `ga`: system messages need no beta.

    Raises:
        Refusal: 400, for the first broken rule.
    """
    if type(messages) is not list:
        raise invalid("messages: Input should be a valid list")
    if not messages:
        raise invalid("messages: at least one message is required")
    if len(messages) > _MAX_MESSAGES:
        raise invalid(f"messages: Too many messages: {len(messages)} > {_MAX_MESSAGES}")
    walk = _Walk(model, betas, seal, ga)
    last = len(messages) - 1
    for index, message in enumerate(messages):
        if type(message) is not dict:
            raise invalid(f"messages.{index}: Input should be a valid dictionary or object")
        role = message.get("role")
        content = message.get("content")
        if role == "user" and type(content) is str and content and len(message) == 2:
            walk.plain_user_turn()  # by far the most common message
        else:
            walk.message(index, message, role, content, index == last)
    walk.finish(request)
    if "cache_control" in request and request["cache_control"] is not None:
        blocks.check_cache_control(request["cache_control"], "", betas)
        walk.breakpoints += 1
    if walk.breakpoints or "system" in request or "tools" in request:
        blocks.limit_breakpoints(walk.breakpoints, request)


class _Walk:
    """One pass over the messages; keeps the tool calls that the next message must answer."""

    __slots__ = (
        "_betas",
        "_ga",
        "_model",
        "_seal",
        "_turn",
        "answered",
        "breakpoints",
        "call_ids",
        "calls_at",
        "ids",
        "started",
        "unsigned_at",
    )

    def __init__(self, model: Model, betas: frozenset[str], seal: Seal, ga: bool) -> None:
        self._model = model
        self._betas = betas
        self._seal = seal
        self._ga = ga
        self._turn = ""  # role of the current turn
        self.started = False  # a system message cannot come first
        self.call_ids: dict[str, None] = {}  # ids of calls in the newest assistant turn, in order
        self.calls_at = 0
        self.answered: set[str] = set()  # those of them that have a result
        self.ids: set[str] = set()  # of all calls so far
        self.breakpoints = 0
        # Message and first block of a turn that calls tools without a thinking block ahead.
        self.unsigned_at: tuple[int, str] | None = None

    def plain_user_turn(self) -> None:
        """Check a user message that is one text."""
        if self._turn == "user":
            return
        self._turn = "user"
        self.started = True
        if self.call_ids:
            self._require_results()
        self.unsigned_at = None

    def message(self, index: int, message: JSON, role: Any, content: Any, last: bool) -> None:
        """Check any other message."""
        at = f"messages.{index}"
        if role == "system":
            self._check_system(at, message, content)
            return
        if role != "user" and role != "assistant":
            raise invalid(
                f"{at}.role: Field required"
                if role is None
                else f'messages: Unexpected role "{role}". Allowed roles are "user" or "assistant"'
            )
        if not _MESSAGE_FIELDS.issuperset(message):
            name = next(field for field in message if field not in _MESSAGE_FIELDS)
            raise extra(f"{at}.{name}")
        if role != self._turn:
            self._start_turn(role, index)
        if type(content) is str:
            self._check_string(at, role, content, last)
            return
        if type(content) is not list:
            raise invalid(
                f"{at}.content: "
                + ("Field required" if content is None else "Input should be a valid list")
            )
        if not content and not (last and role == "assistant"):
            raise invalid(
                f"{at}: all messages must have non-empty content except for the optional final "
                "assistant message"
            )
        if role == "user":
            self._check_user(at, content)
        else:
            self._check_assistant(at, index, content)
            if last:
                self._check_prefill(content[-1] if content else None)

    def finish(self, request: JSON) -> None:
        """Check the end of the conversation: no call may lack its result."""
        if self.call_ids:
            self._require_results()
        if self.unsigned_at is not None:
            thinking = request.get("thinking")
            if thinking is not None and thinking.get("type") == "enabled":
                index, kind = self.unsigned_at
                raise invalid(
                    f"messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, "
                    f"but found `{kind}`. When `thinking` is enabled, a final `assistant` message "
                    "must start with a thinking block (preceeding the lastmost set of `tool_use` "
                    "and `tool_result` blocks). We recommend you include thinking blocks from "
                    "previous turns. To avoid this requirement, disable `thinking`."
                )

    def _start_turn(self, role: str, index: int) -> None:
        if role == "assistant":
            if self.call_ids:
                self._require_results()
            self.calls_at = index
        self._turn = role
        self.started = True

    def _require_results(self) -> None:
        missing = [item for item in self.call_ids if item not in self.answered]
        if missing:
            raise invalid(
                f"messages.{self.calls_at}: `tool_use` ids were found without `tool_result` blocks "
                f"immediately after: {', '.join(missing)}. Each `tool_use` block must have a "
                "corresponding `tool_result` block in the next message."
            )
        self.call_ids = {}
        self.answered = set()

    def _check_string(self, at: str, role: str, content: str, last: bool) -> None:
        if not content and not (last and role == "assistant"):
            raise invalid(
                f"{at}: all messages must have non-empty content except for the optional final "
                "assistant message"
            )
        if role == "user":
            if self.call_ids:
                self._require_results()
            self.unsigned_at = None
        elif last:
            self._check_prefill({"type": "text", "text": content})

    def _check_system(self, at: str, message: JSON, content: Any) -> None:
        allowed = self._ga or any(name.startswith("mid-conversation-") for name in self._betas)
        if not allowed:
            raise invalid(
                'messages: Unexpected role "system". The Messages API accepts a top-level `system` '
                'parameter, not "system" as an input message role.'
            )
        if not self._model.system_turns:
            raise invalid("role 'system' is not supported on this model")
        if not self.started:
            raise invalid(
                f"{at}: the first message must use the user role; put a system prompt into the "
                "top-level `system` parameter"
            )
        for name in message:
            if name in _MESSAGE_FIELDS:
                continue
            families = _SYSTEM_FIELDS.get(name, ())
            if self._betas.isdisjoint(families):
                raise extra(f"{at}.{name}")
        if content is None and message.get("output_config"):
            return
        if type(content) is str:
            if not content:
                raise invalid(f"{at}: system messages must have non-empty content")
            return
        if type(content) is not list or not content:
            raise invalid(f"{at}: system messages must have non-empty content")
        for number, block in enumerate(content):
            kind = block.get("type") if type(block) is dict else None
            if kind == "text":
                blocks.check_text(block, f"{at}.content.{number}", "messages")
            elif kind not in ("tool_addition", "tool_removal"):
                raise invalid(f"{at}.content.{number}.type: Input should be 'text'")
            self._check_breakpoint(block, f"{at}.content.{number}")

    def _check_user(self, at: str, content: list[Any]) -> None:
        has_other = False
        has_results = False
        for number, block in enumerate(content):
            path = f"{at}.content.{number}"
            kind = self._check_block(block, path)
            if kind == "tool_result":
                has_results = True
                if has_other and self.call_ids:
                    self._require_results()  # text before a result hides the result
                self._check_result(block, path)
            elif kind in _ASSISTANT_ONLY:
                raise invalid(f"{at}: `{kind}` blocks can only be in `assistant` messages")
            else:
                has_other = True
        if not has_results:
            if self.call_ids:
                self._require_results()
            self.unsigned_at = None

    def _check_assistant(self, at: str, index: int, content: list[Any]) -> None:
        first = ""
        for number, block in enumerate(content):
            path = f"{at}.content.{number}"
            kind = self._check_block(block, path)
            first = first or kind
            if kind == "tool_use":
                self._check_call(block, path)
            elif kind == "tool_result":
                raise invalid(f"{at}: `tool_result` blocks can only be in `user` messages")
            elif kind == "thinking":
                self._check_thinking(block, path)
        if self.call_ids and first not in ("thinking", "redacted_thinking"):
            self.unsigned_at = self.unsigned_at or (index, first)
        else:
            self.unsigned_at = None

    def _check_block(self, block: Any, at: str) -> str:
        if type(block) is not dict:
            raise invalid(f"{at}: Input should be a valid dictionary or object")
        kind = block.get("type")
        if type(kind) is not str:
            raise invalid(f"{at}.type: Field required")
        if kind not in blocks.FIELDS:
            if kind not in blocks.UNCHECKED and not kind.endswith("_tool_result"):
                raise unknown_tag(at, kind, blocks.FIELDS)
            return kind
        blocks.check_fields(block, kind, at)
        if kind == "text":
            blocks.check_text(block, at, "messages")
        elif kind == "image" or kind == "document":
            media.check(block.get("source"), f"{at}.{kind}.source", kind)
        if "cache_control" in block:
            self._check_breakpoint(block, at)
        return kind

    def _check_breakpoint(self, block: JSON, at: str) -> None:
        value = block.get("cache_control")
        if value is not None:
            blocks.check_cache_control(value, f"{at}.{block['type']}", self._betas)
            self.breakpoints += 1

    def _check_call(self, block: JSON, at: str) -> None:
        call_id = block.get("id")
        if type(call_id) is not str:
            raise invalid(f"{at}.tool_use.id: Field required")
        if not _ID.fullmatch(call_id):
            raise invalid(f"{at}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
        if type(block.get("name")) is not str or not block["name"]:
            raise invalid(f"{at}.tool_use.name: Field required")
        if type(block.get("input")) is not dict:
            raise invalid(
                f"{at}.tool_use.input: "
                + (
                    "Field required"
                    if "input" not in block
                    else "Input should be a valid dictionary"
                )
            )
        if call_id in self.ids:
            raise invalid(f"{at.split('.content')[0]}: `tool_use` ids must be unique")
        self.ids.add(call_id)
        self.call_ids[call_id] = None

    def _check_result(self, block: JSON, at: str) -> None:
        call_id = block.get("tool_use_id")
        if type(call_id) is not str:
            raise invalid(f"{at}.tool_result.tool_use_id: Field required")
        if call_id not in self.call_ids:
            raise invalid(
                f"{at}: unexpected `tool_use_id` found in `tool_result` blocks: {call_id}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous "
                "message."
            )
        if call_id in self.answered:
            raise invalid(
                f"{at}: each tool_use must have a single result. Found multiple `tool_result` "
                f"blocks with id: {call_id}"
            )
        self.answered.add(call_id)
        content = block.get("content")
        if content is None or type(content) is str:
            return
        if type(content) is not list:
            raise invalid(f"{at}.tool_result.content: Input should be a valid list")
        for index, item in enumerate(content):
            kind = self._check_block(item, f"{at}.tool_result.content.{index}")
            if kind in _ASSISTANT_ONLY or kind == "tool_result":
                raise unknown_tag(f"{at}.tool_result.content.{index}", kind, _RESULT_BLOCKS)

    def _check_thinking(self, block: JSON, at: str) -> None:
        thinking, signature = block.get("thinking"), block.get("signature")
        if type(thinking) is not str:
            raise invalid(f"{at}.thinking.thinking: Field required")
        if type(signature) is not str:
            raise invalid(f"{at}.thinking.signature: Field required")
        if not self._seal.verify(thinking, signature):
            raise invalid(f"{at}: Invalid `signature` in `thinking` block")

    def _check_prefill(self, block: JSON | None) -> None:
        if not self._model.prefill:
            raise invalid(
                "This model does not support assistant message prefill. The conversation must end "
                "with a user message."
            )
        if block is None:
            return
        if block["type"] in ("thinking", "redacted_thinking"):
            raise invalid(
                f"messages: The final block in an assistant message cannot be `{block['type']}`."
            )
        if block["type"] == "text" and block["text"] != block["text"].rstrip():
            raise invalid("messages: final assistant content cannot end with trailing whitespace")
