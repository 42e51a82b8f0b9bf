"""The items of a Responses request, read into a conversation.

Decides what each type of item is in the Messages API's terms, and which output belongs to which
call. What nobody here can replay is passed over: a conversation may have been another model's,
or come from a client that is newer than this, and its turn must not break.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from relay.translate.invalid import UNREADABLE, invalid_field, read
from relay.translate.raw_json import (
    NOTHING,
    Octets,
    encode_string,
    has_text,
    is_given,
    kind,
    not_text_error,
    string_content,
)
from relay.translate.request import media
from relay.translate.request.block import Block, text_block, write
from relay.translate.request.conversation import Conversation, Turn
from relay.translate.request.thinking_replay import ThinkingMessage, Thought
from relay.translate.responses.seal import Seal
from relay.translate.responses.tool_calls import CALLS, OUTPUTS, Item, called, told
from relay.translate.responses.tools import Offered

_MOST: Final = 100_000  # docs: api/messages
_TEXTS: Final = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_KNOWN: Final = CALLS | {*OUTPUTS, "message", "reasoning", "compaction", "additional_tools"}
_RESULT: Final = b'{"type":"tool_result","tool_use_id":"%b"'
_NO_OUTPUT: Final = encode_string("This call has no output: it did not run, or was interrupted.")
_GO_ON: Final = msgspec.Raw(encode_string("Continue."))
_BEFORE: Final = encode_string(
    "What was said before was made short. This is the summary of it:\n\n"
)


class _Part(msgspec.Struct, frozen=True, gc=False):
    type: str = ""
    text: msgspec.Raw = NOTHING
    refusal: msgspec.Raw = NOTHING
    image_url: msgspec.Raw = NOTHING
    file_id: msgspec.Raw = NOTHING
    file_data: msgspec.Raw = NOTHING
    file_url: msgspec.Raw = NOTHING
    filename: msgspec.Raw = NOTHING


class _Kind(msgspec.Struct, frozen=True, gc=False):
    type: Any = None


class _Named(msgspec.Struct, frozen=True, gc=False):
    id: str | None = None


_item = msgspec.json.Decoder(Item).decode
_parts = msgspec.json.Decoder(list[_Part]).decode
_part = msgspec.json.Decoder(_Part).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_kind = msgspec.json.Decoder(_Kind).decode
_named = msgspec.json.Decoder(_Named).decode


def conversation(
    raws: Sequence[msgspec.Raw], seal: Seal, offered: Offered, before: Sequence[msgspec.Raw] = ()
) -> Conversation:
    """The conversation that the items are, those `before` them first.

    Tools that come along in them are added to `offered`.

    Raises:
        RelayError: 400, one of them cannot be honoured; `param` says which and where.
    """
    if len(raws) + len(before) > _MOST:
        raise invalid_field("input", f"there are more than {_MOST} items in it")
    kept = _by_id(before) if before else {}
    items: list[tuple[Item, str]] = []
    for number, raw in enumerate((*before, *raws), -len(before)):
        # What was kept has been read before; its place tells its sender nothing.
        at = f"input[{number}]" if number >= 0 else "previous_response_id"
        item = _read(raw, at)
        if item.type == "item_reference":
            found = kept.get(item.id or "")
            if found is None:
                raise invalid_field(at, "items are not kept here: send the item itself")
            item = _read(found, at)
        items.append((item, at))
    return _Reader(seal, offered, items).conversation()


def _read(raw: msgspec.Raw, at: str) -> Item:
    """An item; one that cannot be read is refused if its type is known, else passed over."""
    try:
        item = _item(raw)
    except UNREADABLE:
        try:
            name = _kind(raw).type
        except UNREADABLE:
            name = ""
        if isinstance(name, str) and name and name not in _KNOWN:
            return Item(type=name)
        item = read(_item, raw, at)
    if not item.type and item.role is not None:
        return msgspec.structs.replace(item, type="message")
    return item


def _by_id(raws: Sequence[msgspec.Raw]) -> Mapping[str, msgspec.Raw]:
    found: dict[str, msgspec.Raw] = {}
    for raw in raws:
        id = read(_named, raw, "previous_response_id").id
        if id is not None:
            found[id] = raw
    return found


class _Reader:
    """Walks the items once; `waiting` are the calls of the turn that is being read."""

    __slots__ = ("_items", "_offered", "_outputs", "_said", "_seal", "_taken", "_waiting")

    def __init__(self, seal: Seal, offered: Offered, items: list[tuple[Item, str]]) -> None:
        self._seal = seal
        self._offered = offered
        self._items = items
        self._said = Conversation()
        self._waiting: list[str] = []
        self._taken: set[int] = set()
        # The first call with an id gets the first output with it, and so on, wherever they are.
        self._outputs: dict[str, deque[tuple[Item, str]]] = {}
        left: dict[str | None, int] = {}
        for item, _ in items:
            if item.type in CALLS:
                left[item.number] = left.get(item.number, 0) + 1
        if not left:
            return
        for item, at in items:
            number = item.number
            if item.type in OUTPUTS and number is not None and left.get(number):
                left[number] -= 1
                self._taken.add(id(item))
                self._outputs.setdefault(number, deque()).append((item, at))

    def conversation(self) -> Conversation:
        said = self._said
        leading = True  # nobody has said anything so far
        for item, at in self._items:
            match item.type:
                case "message":
                    leading = self._message(item, at, leading=leading) and leading
                case "reasoning":
                    leading = False
                    self._think(item, at)
                case "compaction":
                    leading = self._sum_up(item) and leading
                case name if name in CALLS:
                    leading = False
                    self._call(item, at)
                case name if name in OUTPUTS:
                    leading = False
                    self._bring(item, at)
                case "additional_tools":
                    self._offered.add(item.tools, f"{at}.tools", found=True)
        self._settle()
        said.finish()
        if not said.turns:
            raise invalid_field("input", "there is nothing in it that the model could answer")
        if said.turns[-1].assistant and said.turns[-1].blocks:
            # Codex sends what it has of an answer that was cut; no model here would go on with
            # it by itself, or some would write on within its last sentence.
            said.user_turn().blocks.append(text_block(_GO_ON))
        return said

    # --- what is said ---

    def _message(self, item: Item, at: str, *, leading: bool) -> bool:
        """Whether it leaves everything to be said yet."""
        role = item.role
        if role == "user":
            if blocks := self._rich(item.content, f"{at}.content"):
                self._settle()
                self._said.user_turn().blocks += blocks
            return False
        if role == "assistant":
            blocks = self._texts(item.content, f"{at}.content")
            if blocks:
                self._assistant().blocks += blocks
            return False
        if role not in ("system", "developer"):
            raise invalid_field(
                f"{at}.role", "it must be one of user, assistant, system and developer"
            )
        blocks = self._texts(item.content, f"{at}.content", aside=not leading)
        if leading:
            self._said.system += blocks
        elif blocks:
            self._settle()
            turn = self._said.user_turn()
            turn.blocks += blocks
            turn.late_instructions += len(blocks)
        return True

    def _rich(self, raw: msgspec.Raw, at: str) -> list[Block]:
        """What may have pictures and documents."""
        if kind(raw) == '"':
            return [text_block(raw)] if has_text(raw, at) else []
        if not is_given(raw):
            return []
        blocks: list[Block] = []
        for number, (part, whole) in enumerate(_each(raw, at)):
            here = f"{at}[{number}]"
            if part.type in _TEXTS or part.type == "refusal":
                text = part.refusal if part.type == "refusal" else part.text
                if has_text(text, f"{here}.text"):
                    blocks.append(text_block(text))
            elif part.type == "input_image":
                _no_file_id(part, here)
                blocks.append(media.image(part.image_url, NOTHING, f"{here}.image_url"))
            elif part.type == "input_file":
                _no_file_id(part, here)
                if is_given(part.file_url):
                    blocks.append(media.linked(part.file_url, part.filename, f"{here}.file_url"))
                else:
                    blocks.append(media.file(whole, NOTHING, here))
            elif part.type in ("input_audio", "input_video"):
                raise invalid_field(
                    here, "these models take text, pictures and documents; send a text"
                )
            elif kind(part.text) == '"' and has_text(part.text, here):
                blocks.append(text_block(part.text))
        return blocks

    def _texts(self, raw: msgspec.Raw, at: str, *, aside: bool = False) -> list[Block]:
        """What has nothing but words; all else is passed over."""
        if kind(raw) == '"':
            return [text_block(raw, late_instruction=aside)] if has_text(raw, at) else []
        if not is_given(raw):
            return []
        texts = [
            part.refusal if part.type == "refusal" else part.text for part in read(_parts, raw, at)
        ]
        return [
            text_block(text, late_instruction=aside)
            for text in texts
            if kind(text) == '"' and has_text(text, at)
        ]

    def _think(self, item: Item, at: str) -> None:
        thought = self._seal.opened(item.encrypted_content)
        if thought is None:
            words = [*self._texts(item.summary, f"{at}.summary"), *self._plain(item.content, at)]
            texts = [string_content(block.text) for block in words if block.text is not None]
            if not texts:
                return
            joined = b"\\n\\n".join(texts)
            thought = Thought("", msgspec.Raw(b'"%b"' % joined))
        turn = self._assistant()
        turn.thinking_messages.append((len(turn.blocks), ThinkingMessage([], [], [thought])))

    def _plain(self, raw: msgspec.Raw, at: str) -> list[Block]:
        return self._texts(raw, f"{at}.content") if kind(raw) == "[" else []

    def _sum_up(self, item: Item) -> bool:
        """What stands for a conversation; whether it could not be opened."""
        text = self._seal.opened_summary(item.encrypted_content)
        if text is None:
            return True
        self._settle()
        whole = b"".join((b'"', string_content(_BEFORE), string_content(text), b'"'))
        self._said.user_turn().blocks.append(text_block(msgspec.Raw(whole)))
        return False

    # --- what is called ---

    def _call(self, item: Item, at: str) -> None:
        number = item.number or item.id
        if number is None:
            raise invalid_field(f"{at}.call_id", "it must be given")
        name, arguments = called(item, at)
        turn = self._assistant()
        turn.blocks.append(self._said.add_call(number, name, arguments, "input"))
        self._waiting.append(number)

    def _bring(self, item: Item, at: str) -> None:
        if item.type == "tool_search_output":
            self._offered.add(item.tools, f"{at}.tools", found=True)
        if id(item) in self._taken:
            if item.number in self._waiting:
                self._settle()
            return
        self._settle()
        shown = encode_string((item.number or "?")[:80])
        head = b"".join(
            (b'"Output of the call ', string_content(shown), b', which is not known here:"')
        )
        blocks = self._rich(told(item, at), f"{at}.output")
        self._said.user_turn().blocks += [text_block(msgspec.Raw(head)), *blocks]

    def _settle(self) -> None:
        """The turn that has called is over: what came of its calls follows."""
        waiting, self._waiting = self._waiting, []
        for number in waiting:
            known = self._said.take_open_call(number, "input")
            octets: list[Octets] = [_RESULT % known.encode()]
            outputs = self._outputs.get(number)
            if outputs:
                item, at = outputs.popleft()
                blocks = self._rich(told(item, at), f"{at}.output")
                if blocks:
                    octets.append(b',"content":[')
                    write(octets, blocks)
                    octets.append(b"]")
            else:
                octets += (b',"content":', _NO_OUTPUT, b',"is_error":true')
            self._said.user_turn().results.append(Block(tuple(octets)))

    def _assistant(self) -> Turn:
        """The assistant's turn: the one that has called, as long as nothing came of it."""
        return self._said.assistant_turn() if not self._waiting else self._said.turns[-1]


def _each(raw: msgspec.Raw, at: str) -> list[tuple[_Part, msgspec.Raw]]:
    raws = read(_raws, raw, at)
    return [(read(_part, one, f"{at}[{number}]"), one) for number, one in enumerate(raws)]


def _no_file_id(part: _Part, at: str) -> None:
    if is_given(part.file_id):
        raise invalid_field(f"{at}.file_id", "no files are kept here; send its content")
    if part.type == "input_image" and not is_given(part.image_url):
        raise not_text_error(NOTHING, f"{at}.image_url")
