"""The rules of a conversation: roles, content blocks, tool ids and their pairing, signatures.

Pure. Consecutive messages of one role count as one turn, as at the real API; a
message of role "system" stands between turns and needs a beta header of its family
(or a version of the API that has such messages).
"""

import re
from typing import Any

from relay.simulator import media
from relay.simulator.models import Model
from relay.simulator.refusal import extra, invalid, unknown_tag
from relay.simulator.seal import Seal

JSON = dict[str, Any]

_ID = re.compile(r"[a-zA-Z0-9_-]+")
_CACHE = frozenset({"cache_control"})
_KEYS = {
    "text": _CACHE | {"type", "text", "citations"},
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": _CACHE | {"type", "id", "name", "input", "caller", "toolset_name"},
    "tool_result": _CACHE | {"type", "tool_use_id", "content", "is_error", "toolset_name"},
    "image": _CACHE | {"type", "source", "transformations"},
    "document": _CACHE | {"type", "source", "title", "context", "citations"},
}
# Blocks that the simulator never makes; they are taken without looking inside.
_OTHERS = frozenset(
    {
        "search_result",
        "server_tool_use",
        "container_upload",
        "compaction",
        "tool_addition",
        "tool_removal",
        "tool_reference",
        "fallback",
        "mcp_tool_use",
        "mcp_tool_result",
        "mcp_tool_listing",
    }
)
# Fields of a system turn -> the betas, any of which allows them.
_SYSTEM_FIELDS = {
    "output_config": ("per-turn-control", "mid-conversation-output-config"),
    "clear_at": ("mid-conversation-system-clear-at", "per-turn-control"),
}
_MESSAGE_KEYS = frozenset({"role", "content"})
_ASSISTANT_ONLY = frozenset({"thinking", "redacted_thinking", "tool_use", "server_tool_use"})
_IN_RESULTS = ("document", "image", "search_result", "text", "tool_reference")
_MAX_BREAKPOINTS = 4
_MAX_MESSAGES = 100_000


def check(
    messages: Any, request: JSON, model: Model, betas: frozenset[str], seal: Seal, *, ga: bool
) -> None:
    """Refuses a conversation that the real API refuses.

    Raises:
        Refusal: the first broken rule.
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
            walk.plain_user_turn()  # by far the commonest
        else:
            walk.message(index, message, role, content, index == last)
    walk.finish(request)
    if "cache_control" in request and request["cache_control"] is not None:
        check_cache_control(request["cache_control"], "", betas)
        walk.breakpoints += 1
    if walk.breakpoints or "system" in request or "tools" in request:
        _limit_breakpoints(walk.breakpoints, request)


def check_system(system: Any, betas: frozenset[str]) -> None:
    """Refuses a `system` that is neither a text nor a list of text blocks."""
    if system is None or type(system) is str:
        return
    if type(system) is not list:
        raise invalid("system: Input should be a valid string or list")
    for index, block in enumerate(system):
        if type(block) is not dict or block.get("type") != "text":
            raise invalid(f"system.{index}.type: Input should be 'text'")
        _known(block, "text", _KEYS["text"], f"system.{index}")
        _text(block, f"system.{index}", "system")
        if block.get("cache_control") is not None:
            check_cache_control(block["cache_control"], f"system.{index}", betas)


def check_cache_control(value: Any, at: str, betas: frozenset[str]) -> None:
    """Refuses a cache breakpoint that is none."""
    at = f"{at}.cache_control" if at else "cache_control"
    if type(value) is not dict or value.get("type") != "ephemeral":
        raise invalid(f"{at}.type: Input should be 'ephemeral'")
    for name, item in value.items():
        if name == "ttl":
            if item not in ("5m", "1h"):
                raise invalid(f"{at}.ephemeral.ttl: Input should be '5m' or '1h'")
        elif name != "type" and (name != "scope" or "prompt-caching-scope" not in betas):
            raise extra(f"{at}.ephemeral.{name}")


def _limit_breakpoints(count: int, request: JSON) -> None:
    for part in (request.get("system"), request.get("tools")):
        if type(part) is list:
            count += sum(1 for block in part if block.get("cache_control") is not None)
    if count > _MAX_BREAKPOINTS:
        raise invalid(
            f"A maximum of {_MAX_BREAKPOINTS} blocks with cache_control may be provided. "
            f"Found {count}."
        )


def _known(block: JSON, kind: str, keys: frozenset[str], at: str) -> None:
    if not keys.issuperset(block):
        name = next(key for key in block if key not in keys)
        raise extra(f"{at}.{kind}.{name}")


def _text(block: JSON, at: str, where: str) -> None:
    text = block.get("text")
    if type(text) is not str:
        raise invalid(
            f"{at}.text.text: "
            + ("Field required" if text is None else "Input should be a valid string")
        )
    if not text:
        if block.get("cache_control") is not None:
            raise invalid(f"{at}: cache_control cannot be set for empty text blocks")
        raise invalid(f"{where}: text content blocks must be non-empty")
    if text.isspace():
        raise invalid(f"{where}: text content blocks must contain non-whitespace text")


class _Walk:
    """One pass over the messages; remembers what the next message must answer."""

    __slots__ = (
        "_betas",
        "_ga",
        "_model",
        "_seal",
        "_turn",
        "answered",
        "asked",
        "asked_at",
        "breakpoints",
        "ids",
        "started",
        "unsigned_at",
    )

    def __init__(self, model: Model, betas: frozenset[str], seal: Seal, ga: bool) -> None:
        self._model = model
        self._betas = betas
        self._seal = seal
        self._ga = ga
        self._turn = ""  # role of the turn that is being read
        self.started = False  # a system turn cannot come first
        self.asked: dict[str, None] = {}  # tool_use ids of the newest assistant turn
        self.asked_at = 0
        self.answered: set[str] = set()
        self.ids: set[str] = set()
        self.breakpoints = 0
        self.unsigned_at: tuple[int, str] | None = None

    def plain_user_turn(self) -> None:
        """A user message that is one text."""
        if self._turn == "user":
            return
        self._turn = "user"
        self.started = True
        if self.asked:
            self._unanswered()
        self.unsigned_at = None

    def message(self, index: int, message: JSON, role: Any, content: Any, last: bool) -> None:
        """Any other message."""
        at = f"messages.{index}"
        if role == "system":
            self._system(at, message, content)
            return
        if role != "user" and role != "assistant":
            raise invalid(
                f"{at}.role: Field required"
                if role is None
                else f'messages: Unexpected role "{role}". Allowed roles are "user" or "assistant"'
            )
        if not _MESSAGE_KEYS.issuperset(message):
            name = next(key for key in message if key not in _MESSAGE_KEYS)
            raise extra(f"{at}.{name}")
        if role != self._turn:
            self._begin(role, index)
        if type(content) is str:
            self._whole_text(at, role, content, last)
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
            self._user(at, content)
        else:
            self._assistant(at, index, content)
            if last:
                self._prefill(content[-1] if content else None)

    def finish(self, request: JSON) -> None:
        """The end of the conversation: nothing may be left unanswered."""
        if self.asked:
            self._unanswered()
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

    def _begin(self, role: str, index: int) -> None:
        if role == "assistant":
            if self.asked:
                self._unanswered()
            self.asked_at = index
        self._turn = role
        self.started = True

    def _unanswered(self) -> None:
        open_ids = [item for item in self.asked if item not in self.answered]
        if open_ids:
            raise invalid(
                f"messages.{self.asked_at}: `tool_use` ids were found without `tool_result` blocks "
                f"immediately after: {', '.join(open_ids)}. Each `tool_use` block must have a "
                "corresponding `tool_result` block in the next message."
            )
        self.asked = {}
        self.answered = set()

    def _whole_text(self, at: str, role: str, content: str, last: bool) -> None:
        if not content and not (last and role == "assistant"):
            raise invalid(
                f"{at}: all messages must have non-empty content except for the optional final "
                "assistant message"
            )
        if role == "user":
            if self.asked:
                self._unanswered()
            self.unsigned_at = None
        elif last:
            self._prefill({"type": "text", "text": content})

    def _system(self, at: str, message: JSON, content: Any) -> None:
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
            if name in _MESSAGE_KEYS:
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
                _text(block, f"{at}.content.{number}", "messages")
            elif kind not in ("tool_addition", "tool_removal"):
                raise invalid(f"{at}.content.{number}.type: Input should be 'text'")
            self._breakpoint(block, f"{at}.content.{number}")

    def _user(self, at: str, content: list[Any]) -> None:
        other = False
        results = False
        for number, block in enumerate(content):
            here = f"{at}.content.{number}"
            kind = self._block(block, here)
            if kind == "tool_result":
                results = True
                if other and self.asked:
                    self._unanswered()  # text before a result hides the result
                self._result(block, here)
            elif kind in _ASSISTANT_ONLY:
                raise invalid(f"{at}: `{kind}` blocks can only be in `assistant` messages")
            else:
                other = True
        if not results:
            if self.asked:
                self._unanswered()
            self.unsigned_at = None

    def _assistant(self, at: str, index: int, content: list[Any]) -> None:
        first = ""
        for number, block in enumerate(content):
            here = f"{at}.content.{number}"
            kind = self._block(block, here)
            first = first or kind
            if kind == "tool_use":
                self._call(block, here)
            elif kind == "tool_result":
                raise invalid(f"{at}: `tool_result` blocks can only be in `user` messages")
            elif kind == "thinking":
                self._signed(block, here)
        if self.asked and first not in ("thinking", "redacted_thinking"):
            self.unsigned_at = self.unsigned_at or (index, first)
        else:
            self.unsigned_at = None

    def _block(self, block: Any, at: str) -> str:
        if type(block) is not dict:
            raise invalid(f"{at}: Input should be a valid dictionary or object")
        kind = block.get("type")
        if type(kind) is not str:
            raise invalid(f"{at}.type: Field required")
        keys = _KEYS.get(kind)
        if keys is None:
            if kind not in _OTHERS and not kind.endswith("_tool_result"):
                raise unknown_tag(at, kind, _KEYS)
            return kind
        _known(block, kind, keys, at)
        if kind == "text":
            _text(block, at, "messages")
        elif kind == "image" or kind == "document":
            media.check(block.get("source"), f"{at}.{kind}.source", kind)
        if "cache_control" in block:
            self._breakpoint(block, at)
        return kind

    def _breakpoint(self, block: JSON, at: str) -> None:
        value = block.get("cache_control")
        if value is not None:
            check_cache_control(value, f"{at}.{block['type']}", self._betas)
            self.breakpoints += 1

    def _call(self, block: JSON, at: str) -> None:
        number = block.get("id")
        if type(number) is not str:
            raise invalid(f"{at}.tool_use.id: Field required")
        if not _ID.fullmatch(number):
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
        if number in self.ids:
            raise invalid(f"{at.split('.content')[0]}: `tool_use` ids must be unique")
        self.ids.add(number)
        self.asked[number] = None

    def _result(self, block: JSON, at: str) -> None:
        number = block.get("tool_use_id")
        if type(number) is not str:
            raise invalid(f"{at}.tool_result.tool_use_id: Field required")
        if number not in self.asked:
            raise invalid(
                f"{at}: unexpected `tool_use_id` found in `tool_result` blocks: {number}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous "
                "message."
            )
        if number in self.answered:
            raise invalid(
                f"{at}: each tool_use must have a single result. Found multiple `tool_result` "
                f"blocks with id: {number}"
            )
        self.answered.add(number)
        content = block.get("content")
        if content is None or type(content) is str:
            return
        if type(content) is not list:
            raise invalid(f"{at}.tool_result.content: Input should be a valid list")
        for index, item in enumerate(content):
            kind = self._block(item, f"{at}.tool_result.content.{index}")
            if kind in _ASSISTANT_ONLY or kind == "tool_result":
                raise unknown_tag(f"{at}.tool_result.content.{index}", kind, _IN_RESULTS)

    def _signed(self, block: JSON, at: str) -> None:
        thinking, signature = block.get("thinking"), block.get("signature")
        if type(thinking) is not str:
            raise invalid(f"{at}.thinking.thinking: Field required")
        if type(signature) is not str:
            raise invalid(f"{at}.thinking.signature: Field required")
        if not self._seal.verify(thinking, signature):
            raise invalid(f"{at}: Invalid `signature` in `thinking` block")

    def _prefill(self, block: JSON | None) -> None:
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
