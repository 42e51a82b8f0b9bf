"""What a chat completion is made of, whole or streamed.

This decides how each single thing that a Messages answer says is put (docs: OpenAI's API
reference, "The chat completion object"; OpenRouter's for `reasoning_details`). Texts are JSON
strings as octets throughout: what came from the upstream is spliced in as it was written. It
must not know whether what it makes goes into a document or into a chunk.
"""

import re
from typing import Final

import msgspec

from relay.translate.usage import Usage

ROLE: Final = b'"role":"assistant","content":"","refusal":null'
NOTHING: Final = msgspec.Raw(b"")
EMPTY: Final = b'""'
MOST_CITATIONS: Final = 100  # of one block

_NO_INPUT: Final = b'"{}"'
_HALF: Final = re.compile(rb"\\(?:u[dD][89a-fA-F]|.)", re.DOTALL)
_FINISH: Final = {
    "end_turn": b"stop",
    "stop_sequence": b"stop",
    "pause_turn": b"stop",
    "max_tokens": b"length",
    "model_context_window_exceeded": b"length",
    "tool_use": b"tool_calls",
    "refusal": b"content_filter",
}
_REFUSED: Final = b'"The model declined to answer this request."'


class Told(msgspec.Struct, frozen=True):
    """What an answer says of itself, the same in each of its chunks.

    `id` is "chatcmpl-…", `created` in epoch seconds, `model` as it was asked for, `family` that
    of the thinking blocks (see config.Vendor.thinking).
    """

    id: str
    created: int
    model: str
    family: str


class Block(msgspec.Struct, frozen=True, gc=False):
    """A content block of a Messages answer, or the start of one in a stream."""

    type: str = ""
    text: msgspec.Raw = NOTHING
    thinking: msgspec.Raw = NOTHING
    signature: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING
    id: msgspec.Raw = NOTHING
    name: msgspec.Raw = NOTHING
    input: msgspec.Raw = NOTHING
    citations: msgspec.Raw = NOTHING


class _Citation(msgspec.Struct, frozen=True, gc=False):
    type: str = ""
    url: msgspec.Raw = NOTHING
    title: msgspec.Raw = NOTHING


class _StopDetails(msgspec.Struct, frozen=True, gc=False):
    explanation: msgspec.Raw = NOTHING


_citation = msgspec.json.Decoder(_Citation).decode
_stop_details = msgspec.json.Decoder(_StopDetails).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


def head(told: Told, kind: str) -> bytes:
    """How a completion's document begins, open for more members."""
    members = {
        "id": told.id,
        "object": kind,
        "created": told.created,
        "model": told.model,
        "system_fingerprint": None,
    }
    return msgspec.json.encode(members)[:-1]


def string(raw: msgspec.Raw) -> bytes:
    """A text as it was written, quotation marks and all; EMPTY where there is none.

    Raises:
        ValueError: it is something else than a text.
    """
    octets = bytes(raw)
    if octets.startswith(b'"'):
        return octets
    if octets in (b"", b"null"):
        return EMPTY
    raise ValueError("something else where a text should be")


def characters(text: bytes) -> int:
    """How many Unicode characters a JSON string has.

    Of a character in two halves (`\\ud83d\\ude00`) the first counts, so that it does not matter
    whether both come in one piece.
    """
    if b"\\" not in text:
        return (len(text) if text.isascii() else len(text.decode())) - 2
    count = len(text.decode()) - 2
    for match in _HALF.finditer(text):
        escape = match[0]
        if len(escape) == 2:  # of a character, or `\u` and four digits
            count -= 5 if escape == b"\\u" else 1
        else:  # half a character: the whole escape if it is the second
            count -= 5 if escape[3:] in b"89abAB" else 6
    return count


def arguments(raw: msgspec.Raw) -> bytes:
    """The input of a tool call as a JSON string, compact, its numbers and escapes untouched.

    Where there is none it is that of an empty object, which clients can parse (litellm #5063).
    """
    octets = bytes(raw)
    if octets in (b"", b"null", EMPTY):
        return _NO_INPUT
    if octets.startswith(b'"'):  # some vendors have put it into a string already
        return octets
    return msgspec.json.encode(msgspec.json.format(octets, indent=-1).decode())


def call(number: int, block: Block, told: Told, text: bytes) -> bytes:
    """A tool call's members; one without an id gets one that no other answer has."""
    name = string(block.name)
    if name == EMPTY:
        raise ValueError("a tool call without a name")
    id = string(block.id)
    if id == EMPTY:
        id = msgspec.json.encode(f"{told.id}-{number}")
    return b'"id":%b,"type":"function","function":{"name":%b,"arguments":%b}' % (id, name, text)


def place(written: int, calls: int, told: Told) -> bytes:
    """The `id` and `format` of a thinking block: where it stood, so that it can be put there
    again, and who can read it. `written` counts the characters before it."""
    family = "anthropic-claude" if told.family == "anthropic" else told.family
    form = msgspec.json.encode(f"{family}-v1")
    return b'"id":"thinking-%d-%d","format":%b' % (written, calls, form)


def citation(raw: msgspec.Raw) -> bytes | None:
    """The `title` and `url` of a citation of the web; None: it is of something else."""
    try:
        cited = _citation(raw)
    except msgspec.ValidationError:
        return None
    url = bytes(cited.url)
    if cited.type != "web_search_result_location" or not url.startswith(b'"'):
        return None
    return b'"title":%b,"url":%b' % (string(cited.title), url)


def citations(raw: msgspec.Raw) -> list[bytes]:
    """Those of the web among a block's citations."""
    if not bytes(raw).startswith(b"["):
        return []
    found = (citation(each) for each in _elements(raw))
    return [each for each in found if each is not None][:MOST_CITATIONS]


def annotation(cited: bytes, start: int, end: int) -> bytes:
    """What a part of the message's text rests upon, from character `start` to `end`."""
    where = b'"start_index":%d,"end_index":%d,' % (start, end)
    return b'"type":"url_citation","url_citation":{%b%b}' % (where, cited)


def finish_reason(stop_reason: str | None, calls: int) -> bytes:
    """Why the answer ended, in OpenAI's words."""
    if stop_reason == "tool_use" and not calls:
        return b"stop"
    return _FINISH.get(stop_reason or "", b"stop")


def refusal(stop_details: msgspec.Raw) -> bytes:
    """What to say of a refusal: the upstream's explanation, if it gave one."""
    if bytes(stop_details).startswith(b"{"):
        explanation = bytes(_stop_details(stop_details).explanation)
        if explanation.startswith(b'"') and explanation != EMPTY:
            return explanation
    return _REFUSED


def usage_object(usage: Usage) -> bytes:
    """OpenAI's `usage`. Unlike Anthropic's, its prompt tokens include those of the cache."""
    read, written = usage.cache_read or 0, usage.cache_write or 0
    prompt, completion = (usage.input or 0) + read + written, usage.output or 0
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":'
        b'{"cached_tokens":%d,"cache_write_tokens":%d,"audio_tokens":0},'
        b'"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":0,'
        b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
    ) % (prompt, completion, prompt + completion, read, written, usage.thinking or 0)
