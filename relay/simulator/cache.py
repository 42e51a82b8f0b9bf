"""The number of tokens in a prompt, and how many of them come from the prompt cache.

Pure and deterministic: four characters are a token. The cache keeps digests of prompt prefixes
at the breakpoints of requests: tools, then system, then messages, as at the real API. Its memory
is bounded and it has no clock: the oldest entries leave when newer ones need the room.
"""

import hashlib
from collections import OrderedDict
from typing import Any, Final

import msgspec
import orjson

JSON = dict[str, Any]

CHARACTERS: Final = 4  # of a token
_MESSAGE_CHARACTERS: Final = 12  # for a message beside its content
_LOOK_BACK_BLOCKS: Final = 20  # Anthropic API reference, Prompt caching


class Prompt(msgspec.Struct, frozen=True):
    """Input tokens of one request, split as in the usage of the real API."""

    uncached: int
    written_5m: int = 0
    written_1h: int = 0
    read: int = 0


def count(request: JSON) -> int:
    """Tokens of the entire prompt."""
    total = 0
    for message in request["messages"]:
        total += _MESSAGE_CHARACTERS
        content = message.get("content")
        if type(content) is str:
            total += len(content)
        elif content:
            for block in content:
                total += _weight(block)
    system = request.get("system")
    if system:
        if type(system) is str:
            total += len(system)
        else:
            for block in system:
                total += len(block["text"])
    tools = request.get("tools")
    if tools:
        for tool in tools:
            total += len(orjson.dumps(tool))
    return max(1, total // CHARACTERS)


def _weight(block: JSON) -> int:
    if block["type"] == "text":
        return len(block["text"])
    if block["type"] in ("image", "document"):
        return 1_500 * CHARACTERS  # independent of the size of its base64
    if block["type"] == "tool_result" and type(block.get("content")) is list:
        rest = len(orjson.dumps({**block, "content": []}))
        return rest + sum(map(_weight, block["content"]))
    return len(orjson.dumps(block))


class PromptCache:
    """Digests of the prefixes that were written, the newest last."""

    __slots__ = ("_limit", "_prefixes")

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._prefixes: OrderedDict[bytes, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<PromptCache {len(self._prefixes)}/{self._limit}>"

    def account(self, request: JSON) -> Prompt:
        """The tokens that this request reads and writes; stores its prefixes."""
        blocks = _blocks(request)
        last = -1
        marks: list[tuple[int, str]] = []
        for index, (_, control) in enumerate(blocks):
            if control is not None:
                marks.append((index, control))
                last = index
        if not marks:
            return Prompt(count(request))
        digests, ends = _prefixes(request["model"], blocks[: last + 1])
        total = count(request)
        read = 0
        for index, _ in reversed(marks):
            newest = self._newest(digests, index)
            if newest >= 0:
                read = ends[newest] // CHARACTERS
                break
        written = {"5m": 0, "1h": 0}
        done = read
        for index, ttl in marks:
            end = ends[index] // CHARACTERS
            if end > done:
                written[ttl] += end - done
                done = end
            self._remember(digests[index])
        return Prompt(max(0, total - done), written["5m"], written["1h"], read)

    def _newest(self, digests: list[bytes], mark: int) -> int:
        """The longest stored prefix that ends at `mark` or up to 20 blocks before it, or -1."""
        for index in range(mark, max(-1, mark - _LOOK_BACK_BLOCKS - 1), -1):
            if digests[index] in self._prefixes:
                self._prefixes.move_to_end(digests[index])
                return index
        return -1

    def _remember(self, digest: bytes) -> None:
        self._prefixes[digest] = None
        self._prefixes.move_to_end(digest)
        if len(self._prefixes) > self._limit:
            self._prefixes.popitem(last=False)


def _blocks(request: JSON) -> list[tuple[JSON, str | None]]:
    """All cacheable blocks in prompt order, each with the ttl of its breakpoint."""
    found: list[tuple[JSON, str | None]] = [
        (tool, _ttl(tool)) for tool in request.get("tools") or ()
    ]
    _append(found, "system", request.get("system"))
    for message in request["messages"]:
        _append(found, message["role"], message.get("content"))
    if request.get("cache_control") is not None and found:
        block, own = found[-1]
        found[-1] = (block, own or request["cache_control"].get("ttl", "5m"))
    return found


def _append(found: list[tuple[JSON, str | None]], role: str, content: Any) -> None:
    if type(content) is str:
        # A string is the same prompt as a list of one text block.
        found.append(({"role": role, "type": "text", "text": content}, None))
    elif content:
        for block in content:
            found.append(({"role": role, **block}, _ttl(block)))


def _ttl(block: JSON) -> str | None:
    control = block.get("cache_control")
    return None if control is None else control.get("ttl", "5m")


def _prefixes(model: str, blocks: list[tuple[JSON, str | None]]) -> tuple[list[bytes], list[int]]:
    """Digest and length in characters of the prompt up to the end of each block."""
    running = hashlib.blake2b(model.encode(), digest_size=16)
    digests: list[bytes] = []
    ends: list[int] = []
    end = 0
    for block, _ in blocks:
        plain = {key: value for key, value in block.items() if key != "cache_control"}
        running.update(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS))
        digests.append(running.copy().digest())
        end += _weight(block) if "role" in block else len(orjson.dumps(block))
        ends.append(end)
    return digests, ends
