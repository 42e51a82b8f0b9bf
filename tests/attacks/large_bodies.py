"""Large requests of odd shapes, each of which has held up other callers."""

import contextlib
import gzip
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

import zstandard

from tests.fakes.caller import request

MODEL = "claude-haiku-4-5"
MIB = 1 << 20

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


class Attack(NamedTuple):
    """A request; `encoding` names how its body is compressed."""

    path: str
    body: bytes
    encoding: str = ""
    chunk: int = 0  # octets in a chunk; 0 for no chunked coding
    statuses: tuple[int, ...] = (200, 400, 413)


def chat(messages: str, **more: str) -> bytes:
    members = "".join(f',"{name}":{value}' for name, value in more.items())
    return f'{{"model":"{MODEL}","messages":[{messages}]{members}}}'.encode()


def messages(content: str, **more: str) -> bytes:
    message = f'{{"role":"user","content":{content}}}'
    return chat(message, max_tokens="16", **more)


def responses(items: str, **more: str) -> bytes:
    members = "".join(f',"{name}":{value}' for name, value in more.items())
    return f'{{"model":"{MODEL}","input":{items}{members}}}'.encode()


def thought(details: str) -> str:
    said = '{"role":"user","content":"x"}'
    return f'{said},{{"role":"assistant","content":"y","reasoning_details":[{details}]}},{said}'


def pieces() -> bytes:
    """FINDINGS C1: a long text, and thousands of pieces that are joined to it."""
    first = '{"type":"reasoning.text","index":0,"text":"%s"},' % ("A" * 8 * MIB)
    return chat(
        thought(first + ",".join(['{"type":"reasoning.text","index":0,"text":"b"}'] * 8000))
    )


def places(count: int) -> bytes:
    """FINDINGS C1: a long text, and thousands of thoughts with places in it."""
    text = '"%s"' % ("é" * 2 * MIB)
    details = ",".join(
        f'{{"type":"reasoning.text","id":"thinking-{number}-0","format":"anthropic-claude-v1",'
        f'"text":"b","signature":"s"}}'
        for number in range(count)
    )
    said = '{"role":"user","content":"x"}'
    return chat(
        f'{said},{{"role":"assistant","content":{text},"reasoning_details":[{details}]}},{said}'
    )


def equal_calls(count: int) -> bytes:
    call = '{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}'
    result = '{"role":"tool","tool_call_id":"c","content":"x"}'
    asked = f'{{"role":"assistant","tool_calls":[{",".join([call] * count)}]}}'
    return chat(f'{{"role":"user","content":"x"}},{asked},{",".join([result] * count)}')


def many(element: str, octets: int) -> str:
    return ",".join([element] * (octets // (len(element) + 1)))


def text_parts(count: int) -> str:
    return "[" + ",".join(['{"type":"text","text":"a"}'] * count) + "]"


TURNS = '{"role":"user","content":"a"},{"role":"assistant","content":"a"}'

ATTACKS: dict[str, Callable[[], Attack]] = {
    "pieces of thinking": lambda: Attack(CHAT, pieces(), "gzip"),
    "places of thinking": lambda: Attack(CHAT, places(256), "gzip"),
    "equal call ids": lambda: Attack(CHAT, equal_calls(10_000), "gzip"),
    "unknown tools": lambda: Attack(
        CHAT, chat('{"role":"user","content":"x"}', tools=f"[{many(TOOL, 18 * MIB)}]"), "gzip"
    ),
    "text parts": lambda: Attack(
        CHAT, chat(f'{{"role":"user","content":{text_parts(640_000)}}}'), "gzip", statuses=(413,)
    ),
    "allowed text parts": lambda: Attack(
        CHAT, chat(f'{{"role":"user","content":{text_parts(33_000)}}}'), "gzip"
    ),
    "many items": lambda: Attack(RESPONSES, responses(f"[{','.join([TURNS] * 16_000)}]")),
    "empty blocks": lambda: Attack(
        MESSAGES, messages(f"[{many('{}', 24 * MIB)}]"), statuses=(413,)
    ),
    "empty items": lambda: Attack(RESPONSES, responses(f"[{many('{}', 140_000)}]")),
    "members of a block": lambda: Attack(
        MESSAGES,
        messages('"x"', system="[{{{}}}]".format(",".join(f'"{n}":1' for n in range(2_000_000)))),
        statuses=(413,),
    ),
    "allowed members of a block": lambda: Attack(
        MESSAGES,
        messages('"x"', system="[{{{}}}]".format(",".join(f'"{n}":1' for n in range(99_000)))),
    ),
    "models": lambda: Attack(MESSAGES, messages('"x"', z=f"[{many(MODEL_KEY, 20 * MIB)}]")),
    "brackets": lambda: Attack(MESSAGES, messages('"x"', z="[" * 30 * MIB)),
    "plain text": lambda: Attack(MESSAGES, messages('"%s"' % ("a" * 31 * MIB))),
    "plain text in chat": lambda: Attack(
        CHAT, chat('{"role":"user","content":"%s"}' % ("a" * 31 * MIB)), "zstd"
    ),
    "escapes": lambda: Attack(CHAT, chat('{"role":"user","content":"%s"}' % (r"\n" * 15 * MIB))),
    "allowed escapes": lambda: Attack(
        CHAT, chat('{"role":"user","content":"%s"}' % (r"\n" * 4_000_000)), "gzip"
    ),
    "words of a URL": lambda: Attack(
        CHAT,
        chat(
            '{"role":"user","content":[{"type":"image_url","image_url":"http://a/%s"}]}'
            % (r"\n" + " a" * 8 * MIB)
        ),
        "gzip",
    ),
    "small chunks": lambda: Attack(MESSAGES, messages('"%s"' % ("a" * 800_000)), chunk=1),
    "a long call": lambda: Attack(
        RESPONSES,
        responses(
            '[{"role":"user","content":"x"},{"type":"function_call","call_id":"c","name":"f",'
            '"arguments":"{\\"a\\":\\"%s\\"}"},'
            '{"type":"function_call_output","call_id":"c","output":"x"}]' % ("a" * 31 * MIB)
        ),
    ),
    "a long image": lambda: Attack(
        CHAT,
        chat(
            '{"role":"user","content":[{"type":"image_url",'
            '"image_url":{"url":"data:image/png;base64,%s"}}]}' % ("a" * 31 * MIB)
        ),
    ),
    "plain text in responses": lambda: Attack(RESPONSES, responses('"%s"' % ("a" * 31 * MIB))),
    "a bomb": lambda: Attack(CHAT, bytes(64 * MIB), "zstd", statuses=(413,)),
    "a bomb of gzip": lambda: Attack(CHAT, bytes(64 * MIB), "gzip", statuses=(413,)),
}
TOOL = '{"type":"tool_search"}'
MODEL_KEY = '"model"'


def octets_of(attack: Attack, key: str) -> bytes:
    fields, body = "", attack.body
    if attack.encoding:
        compress = gzip.compress if attack.encoding == "gzip" else zstandard.compress
        body = compress(body)
        fields = f"content-encoding: {attack.encoding}\r\n"
    octets = request(key, body, target=attack.path, fields=fields)
    if attack.chunk:
        head = octets[: octets.index(b"content-length")]
        step = attack.chunk
        chunks = [
            b"%x\r\n%b\r\n" % (len(body[at : at + step]), body[at : at + step])
            for at in range(0, len(body), step)
        ]
        octets = head + b"transfer-encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"
    return octets


def send_and_leave(port: int, octets: bytes) -> None:
    """Sends a request and closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(octets)
        time.sleep(0.3)


def send(port: int, octets: bytes) -> bytes:
    """Sends a request; in a thread, so as not to occupy the loop."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):  # refused, and closed, before all was sent
            connection.sendall(octets)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                answer += data
                if b"\r\n\r\n" in answer:
                    return answer
        return answer
