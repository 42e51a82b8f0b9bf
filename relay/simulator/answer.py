"""What the simulated model says: text, thinking, tool calls, searches, and why it stops.

Pure: a valid request and a script in, an `Answer` out, the same for the same input. The
answer is whole; `events` cuts it into a stream.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from relay.simulator import models, search, toolcall, words
from relay.simulator.cache import CHARACTERS
from relay.simulator.script import NORMAL, Script
from relay.simulator.seal import Seal

JSON = dict[str, Any]

REFUSED = {
    "type": "refusal",
    "category": "cyber",
    "explanation": "Simulated: this request could do harm.",
}
_ECHO = 160  # characters of the user's text that are repeated
_BIG_PIECE = 1024  # characters of a delta when a text of an exact size is asked for


class Answer(msgspec.Struct, frozen=True):
    """Content blocks as the API has them; `pieces` are the deltas of each text or thinking."""

    blocks: list[JSON]
    pieces: list[Sequence[str]]
    stop_reason: str
    output_tokens: int
    thinking_tokens: int = 0
    stop_sequence: str | None = None
    stop_details: JSON | None = None
    searches: int = 0


def compose(request: JSON, script: Script, seal: Seal, number: str) -> Answer:
    """The answer to a request that `strict` let through; `number` makes tool ids unique."""
    draft = _Draft()
    if script.stop == "refusal" and script.tokens is None and script.bytes is None:
        return draft.finish(request, script)
    text, results = _last_turn(request)
    thinking = request.get("thinking")
    if script.thinking or (thinking is not None and thinking["type"] in ("enabled", "adaptive")):
        draft.think(text, hidden=_hidden(request), seal=seal)
    call = wanted = None
    if request.get("tools") or script.tool is not None:
        wanted = _wanted(request, script, text, results)
        call = None if wanted is not None else _call(request, script, text, results)
    if wanted is not None:
        draft.search(search.blocks(wanted, request, number))
    elif call is not None:
        draft.call(call, _parallel(request, script), number)
    elif script is NORMAL or (script.tokens is None and script.bytes is None):
        draft.say(_words(request, text, results))
    elif script.bytes is not None:
        draft.say_exactly(script.bytes)
    else:
        draft.say_tokens(words.tokens(script.tokens or 0, script.seed))
    return draft.finish(request, script)


def _last_turn(request: JSON) -> tuple[str, list[JSON]]:
    """The newest words of the user, and the tool results that came with them."""
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


def _hidden(request: JSON) -> bool:
    """Whether a thinking block shows nothing of its text."""
    thinking = request.get("thinking")
    if thinking is None:
        return False  # the script alone wants it, so as to see it
    display = thinking.get("display")
    if display is not None:
        return bool(display == "omitted")
    model = models.find(request["model"])
    return model is not None and not model.thinking_shown


def _wanted(request: JSON, script: Script, text: str, results: list[JSON]) -> str | None:
    """What is searched for, if anything: not what the user wanted before a tool answered."""
    choice = request.get("tool_choice") or {}
    if results and choice.get("type") not in ("any", "tool"):
        return None
    if script.tool is not None and not results:
        return None
    return search.query(request, text)


def _call(request: JSON, script: Script, text: str, results: list[JSON]) -> tuple[str, JSON] | None:
    choice = request.get("tool_choice") or {}
    if results and choice.get("type") not in ("any", "tool"):
        return None  # second step of the loop: the tool has answered
    return toolcall.choose(request, text, None if results else script.tool)


def _parallel(request: JSON, script: Script) -> int:
    choice = request.get("tool_choice") or {}
    return 1 if choice.get("disable_parallel_tool_use") else script.tools


def _words(request: JSON, text: str, results: list[JSON]) -> str:
    shape = (request.get("output_config") or {}).get("format") or request.get("output_format")
    if shape is not None:
        made = toolcall.example(shape["schema"], shape["schema"])
        return orjson.dumps(made).decode()
    if results:
        failed = any(result.get("is_error") for result in results)
        # Agents append notes to the model in this tag; they are no part of the result.
        told = _excerpt(_result_text(results[-1]).partition("<system-reminder>")[0])
        return f"The tool failed: {told}" if failed else f"Done. The tool answered: {told}"
    return (
        f"This is the simulated upstream. You said: “{_excerpt(text)}”. "
        "Nothing was understood and nothing is remembered, but every byte was read."
    )


def _excerpt(text: str) -> str:
    # The split is for the tokens: one space between two words, so pieces can be counted.
    return " ".join(text[: 4 * _ECHO].split())[:_ECHO].rstrip() or "(nothing)"


def _result_text(result: JSON) -> str:
    content = result.get("content")
    if type(content) is str:
        return content
    for block in content or ():
        if block["type"] == "text":
            return str(block["text"])
    return ""


class _Draft:
    """An answer while it is being put together."""

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
                    "input": arguments,
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
        self._text(text, [text[at : at + _BIG_PIECE] for at in range(0, len(text), _BIG_PIECE)])
        self.tokens += max(1, size // CHARACTERS)

    def say_tokens(self, pieces: tuple[str, ...]) -> None:
        if pieces:
            self._text("".join(pieces), pieces)
        self.tokens += len(pieces)

    def _text(self, text: str, pieces: Sequence[str]) -> None:
        self.blocks.append({"type": "text", "text": text})
        self.pieces.append(pieces)

    def finish(self, request: JSON, script: Script) -> Answer:
        stop = None
        if "stop_sequences" in request and self.stop_reason == "end_turn":
            stop = self._stop_at(request["stop_sequences"] or ())
        limit = request["max_tokens"]
        asked_for = script.tokens is not None or script.bytes is not None
        if self.tokens + self.thinking > limit and not asked_for:
            self._truncate(limit)
        return Answer(
            self.blocks,
            self.pieces,
            script.stop or self.stop_reason,
            self.tokens + self.thinking,
            self.thinking,
            None if script.stop else stop,
            REFUSED if script.stop == "refusal" else None,
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
        """Stop at `max_tokens`; a call that does not fit is left out, as is thinking."""
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
