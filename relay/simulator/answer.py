"""The simulated model's answer: text, thinking, tool calls, searches, and the reason to stop.

Pure: a valid request and a script in, an `Answer` out, the same for the same input. Must not
know how an answer is written; `events` does.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson

from relay.simulator import models, search, toolcall, words
from relay.simulator.cache import CHARACTERS
from relay.simulator.script import NORMAL, Script
from relay.simulator.seal import Seal

JSON = dict[str, Any]

_STOP_DETAILS: Final = {
    "type": "refusal",
    "category": "cyber",
    "explanation": "Simulated: this request could do harm.",
}
_ECHO_CHARACTERS: Final = 160  # of the user's text that are repeated
_LARGE_DELTA_CHARACTERS: Final = 1024  # where a text of an exact size is asked for


class Answer(msgspec.Struct, frozen=True):
    """Content blocks as the API has them, and for each block the deltas of its text or thinking."""

    blocks: list[JSON]
    pieces: list[Sequence[str]]  # empty: `events` cuts the text itself
    stop_reason: str
    output_tokens: int
    thinking_tokens: int = 0
    stop_sequence: str | None = None
    stop_details: JSON | None = None
    searches: int = 0


def compose(request: JSON, script: Script, seal: Seal, number: str) -> Answer:
    """The answer to a request that `strict` accepts; `number` makes tool ids unique."""
    draft = _Draft()
    if script.stop == "refusal" and script.tokens is None and script.bytes is None:
        return draft.finish(request, script)
    text, results = _last_turn(request)
    thinking = request.get("thinking")
    if script.thinking or (thinking is not None and thinking["type"] in ("enabled", "adaptive")):
        draft.think(text, hidden=_hides_thinking(request), seal=seal)
    call = query = None
    if request.get("tools") or script.tool is not None:
        query = _search_query(request, script, text, results)
        call = None if query is not None else _choose_call(request, script, text, results)
    if query is not None:
        draft.search(search.blocks(query, request, number))
    elif call is not None:
        draft.call(call, _parallel_calls(request, script), number)
    elif script is NORMAL or (script.tokens is None and script.bytes is None):
        draft.say(_reply(request, text, results))
    elif script.bytes is not None:
        draft.say_exactly(script.bytes)
    else:
        draft.say_tokens(words.tokens(script.tokens or 0, script.seed))
    return draft.finish(request, script)


def _last_turn(request: JSON) -> tuple[str, list[JSON]]:
    """The last text of the user, and the tool results beside it."""
    for message in reversed(request["messages"]):
        if message["role"] != "user":
            continue
        content = message["content"]
        if type(content) is str:
            return content, []
        text = ""
        results = []
        for block in content:
            if block["type"] == "text":
                text = block["text"]
            elif block["type"] == "tool_result":
                results.append(block)
        return text, results
    return "", []


def _hides_thinking(request: JSON) -> bool:
    """Whether a thinking block has an empty text."""
    thinking = request.get("thinking")
    if thinking is None:
        return False  # only the script asked for thinking, in order to see it
    display = thinking.get("display")
    if display is not None:
        return bool(display == "omitted")
    model = models.find(request["model"])
    return model is not None and not model.thinking_shown


def _search_query(request: JSON, script: Script, text: str, results: list[JSON]) -> str | None:
    """The query of a web search; None without a search, or after a tool has answered."""
    choice = request.get("tool_choice") or {}
    if results and choice.get("type") not in ("any", "tool"):
        return None
    if script.tool is not None and not results:
        return None
    return search.query(request, text)


def _choose_call(
    request: JSON, script: Script, text: str, results: list[JSON]
) -> tuple[str, JSON] | None:
    """Name and arguments of the tool call; None for an answer in words."""
    choice = request.get("tool_choice") or {}
    if results and choice.get("type") not in ("any", "tool"):
        return None  # second step of the loop: the tool has answered
    return toolcall.choose(request, text, None if results else script.tool)


def _parallel_calls(request: JSON, script: Script) -> int:
    choice = request.get("tool_choice") or {}
    return 1 if choice.get("disable_parallel_tool_use") else script.tools


def _reply(request: JSON, text: str, results: list[JSON]) -> str:
    output_config = request.get("output_config") or {}
    output_format = output_config.get("format") or request.get("output_format")
    if output_format is not None:
        schema = output_format["schema"]
        return orjson.dumps(toolcall.example(schema, schema)).decode()
    if results:
        failed = any(result.get("is_error") for result in results)
        # Agents append notes to the model in this tag; they do not belong to the result.
        excerpt = _excerpt(_result_text(results[-1]).partition("<system-reminder>")[0])
        return f"The tool failed: {excerpt}" if failed else f"Done. The tool answered: {excerpt}"
    return (
        f"This is the simulated upstream. You said: “{_excerpt(text)}”. "
        "Nothing was understood and nothing is remembered, but every byte was read."
    )


def _excerpt(text: str) -> str:
    # One space between two words: every piece is a token, and pieces are counted.
    echo = " ".join(text[: 4 * _ECHO_CHARACTERS].split())
    return echo[:_ECHO_CHARACTERS].rstrip() or "(nothing)"


def _result_text(result: JSON) -> str:
    content = result.get("content")
    if type(content) is str:
        return content
    for block in content or ():
        if block["type"] == "text":
            return str(block["text"])
    return ""


class _Draft:
    """An answer under construction."""

    __slots__ = ("blocks", "pieces", "searches", "stop_reason", "thinking", "tokens")

    def __init__(self) -> None:
        self.blocks: list[JSON] = []
        self.pieces: list[Sequence[str]] = []
        self.stop_reason = "end_turn"
        self.tokens = 0
        self.thinking = 0
        self.searches = 0

    def think(self, text: str, *, hidden: bool, seal: Seal) -> None:
        thought = f"The user wants: “{_excerpt(text)}”. I will answer in one or two sentences."
        pieces = words.pieces(thought)
        shown = "" if hidden else thought
        self.blocks.append(
            {"type": "thinking", "thinking": shown, "signature": seal.sign(shown, thought)}
        )
        self.pieces.append([] if hidden else pieces)
        self.thinking = len(pieces)

    def call(self, call: tuple[str, JSON], times: int, number: str) -> None:
        name, arguments = call
        cost = max(1, len(orjson.dumps(arguments)) // CHARACTERS)
        for index in range(times):
            self.blocks.append(
                {
                    "type": "tool_use",
                    "id": f"toolu_01{number[:20]}{index:02d}",
                    "name": name,
                    "input": toolcall.apart(arguments, index),
                }
            )
            self.pieces.append(())
            self.tokens += cost
        self.stop_reason = "tool_use"

    def search(self, blocks: list[JSON]) -> None:
        for block in blocks:
            self.blocks.append(block)
            self.pieces.append(())
            if block["type"] == "text":
                self.tokens += block["text"].count(" ") + 1
            elif block["type"] == "server_tool_use":
                self.tokens += max(1, len(orjson.dumps(block["input"])) // CHARACTERS)
                self.searches += 1

    def say(self, text: str) -> None:
        self._text(text, ())
        self.tokens += text.count(" ") + 1

    def say_exactly(self, size: int) -> None:
        text = words.exactly(size)
        step = _LARGE_DELTA_CHARACTERS
        self._text(text, [text[at : at + step] for at in range(0, len(text), step)])
        self.tokens += max(1, size // CHARACTERS)

    def say_tokens(self, pieces: tuple[str, ...]) -> None:
        if pieces:
            self._text("".join(pieces), pieces)
        self.tokens += len(pieces)

    def _text(self, text: str, pieces: Sequence[str]) -> None:
        self.blocks.append({"type": "text", "text": text})
        self.pieces.append(pieces)

    def finish(self, request: JSON, script: Script) -> Answer:
        sequence = None
        if "stop_sequences" in request and self.stop_reason == "end_turn":
            sequence = self._stop_at(request["stop_sequences"] or ())
        limit = request["max_tokens"]
        scripted = script.tokens is not None or script.bytes is not None
        if self.tokens + self.thinking > limit and not scripted:
            self._truncate(limit)
        return Answer(
            self.blocks,
            self.pieces,
            script.stop or self.stop_reason,
            self.tokens + self.thinking,
            self.thinking,
            None if script.stop else sequence,
            _STOP_DETAILS if script.stop == "refusal" else None,
            self.searches,
        )

    def _stop_at(self, sequences: Sequence[str]) -> str | None:
        if not self.blocks:
            return None
        text = self.blocks[-1]["text"]
        found = [(text.index(item), item) for item in sequences if item in text]
        if not found:
            return None
        at, sequence = min(found)
        self.stop_reason = "stop_sequence"
        self._replace(text[:at])
        return sequence

    def _replace(self, text: str) -> None:
        self.blocks.pop()
        self.pieces.pop()
        self.tokens = 0
        if text:
            self.say(text)

    def _truncate(self, limit: int) -> None:
        """Stop at `max_tokens`: drop a call or a thinking block that does not fit."""
        self.stop_reason = "max_tokens"
        room = limit - self.thinking
        if room <= 0:
            self.blocks.clear()
            self.pieces.clear()
            self.tokens, self.thinking = limit, 0
            return
        if self.blocks[-1]["type"] == "text":
            kept = words.pieces(self.blocks[-1]["text"])[:room]
            self._replace("".join(kept).rstrip(" "))
        else:
            keep = 1 if self.thinking else 0
            del self.blocks[keep:], self.pieces[keep:]
        self.tokens = room
