"""The simulated upstream as a handler of exchanges: its paths, and the order of its checks.

Decides the order of a request's checks, as at the real API: credential, version and betas, body,
`strict`. Then the answer is composed and sent as a document or a stream, well or with the fault
in the `x-simulate` header. Must not know the relay's policy.
"""

import asyncio
import time
import zlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson

from relay.clock import rfc3339
from relay.net.exchange import Exchange
from relay.simulator import answer, cache, events, faults, models, strict
from relay.simulator.cache import PromptCache
from relay.simulator.journal import Journal
from relay.simulator.pacing import Pacer
from relay.simulator.refusal import Refusal, invalid
from relay.simulator.script import NORMAL, Script, parse, parse_list
from relay.simulator.seal import Seal

Fields = list[tuple[bytes, bytes]]

BAD_KEY: Final = b"sim-bad-key"
ORGANIZATION: Final = b"5ca1ab1e-0000-4000-8000-51a1a7ed0001"
_JSON: Final = (b"content-type", b"application/json")
_EVENTS: Final = (b"content-type", b"text/event-stream; charset=utf-8")
_NO_BETAS: Final[frozenset[str]] = frozenset()
_GA_VERSION: Final = b"2026-10-21"  # system messages need no beta
_BURST: Final = 16 * 1024  # octets of unpaced events that are written at once
_MAX_BETAS: Final = 256  # values of `anthropic-beta` that are cached
_MAX_CACHED: Final = 256  # answers
_MAX_CACHED_BODY: Final = 4096  # octets of a request whose answer is cached


class _CachedAnswer(msgspec.Struct, frozen=True):
    """The answer to a small request, split where its id stands."""

    before: bytes
    after: bytes
    input_tokens: int
    output_tokens: int


class Simulator:
    """Answers like the Messages API; ids and signatures follow from `seed`."""

    def __init__(self, seed: str = "relay") -> None:
        self.seal = Seal(seed)
        self.journal = Journal()
        self.cache = PromptCache()
        self.pacer = Pacer()
        self.scripts: deque[Script] = deque()
        self._seed = zlib.crc32(seed.encode())
        self._count = 0
        # A bench sends one small request over and over, and shares its core with this
        # simulator: parsing, checks and composing are done once for equal requests.
        self._answers: dict[tuple[bytes, bytes | None, bytes | None], _CachedAnswer] = {}
        self._betas: dict[bytes, frozenset[str]] = {}
        self._common: Fields = []
        self._common_expires = 0.0

    def __repr__(self) -> str:
        return f"<Simulator {self._count} requests, {len(self.scripts)} scripts>"

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        request = exchange.request
        path = request.path
        if path.startswith(b"/simulate/"):
            await self._answer_control(exchange)
            return
        body = await exchange.body()
        entry = self.journal.add(request, body)
        self._count += 1
        # With the body in it, ids within a conversation differ even after a restart.
        number = f"{self._count:08x}{zlib.crc32(body):08x}{self._seed >> 8:06x}"
        try:
            if path == b"/v1/messages":
                await self._answer_messages(exchange, body, number)
            else:
                self._answer_other(exchange, body, number)
        except Refusal as refusal:
            self.journal.refused += 1
            self._refuse(exchange, refusal, number)
        except asyncio.CancelledError:
            entry.aborted = True
            self.journal.aborted += 1
            raise
        finally:
            self.journal.end(entry, exchange.status)

    # --- POST /v1/messages ----------------------------------------------------------

    async def _answer_messages(self, exchange: Exchange, body: bytes, number: str) -> None:
        request = exchange.request
        if request.method != b"POST":
            raise Refusal(405, "Method Not Allowed")
        headers = request.headers
        script = NORMAL
        header = headers.get(b"x-simulate")
        if header is not None:
            script = parse(header.decode("latin-1"))
        elif self.scripts:
            script = self.scripts.popleft()
        key = (body, headers.get(b"anthropic-beta"), headers.get(b"anthropic-version"))
        if script is NORMAL:
            cached = self._answers.get(key)
            if cached is not None:
                self._authorize(exchange)
                self._repeat(exchange, cached, number)
                return
        elif await self._replace_answer(exchange, script, number):
            return
        document, betas = self._admit(exchange, body)
        ga = headers[b"anthropic-version"] == _GA_VERSION
        model = strict.check(document, betas, self.seal, ga=ga).id
        if b'"cache_control"' in body:
            prompt = self.cache.account(document)
        else:
            prompt = cache.Prompt(cache.count(document))
        composed = answer.compose(document, script, self.seal, number)
        streamed = document.get("stream") is True
        journal = self.journal
        journal.input_tokens += prompt.uncached
        journal.cache_creation_input_tokens += prompt.written_5m + prompt.written_1h
        journal.cache_read_input_tokens += prompt.read
        fields = self._fields(_EVENTS if streamed else _JSON, number)
        if streamed:
            parts = events.stream(model, number, composed, prompt, document)
        else:
            parts = [events.message(model, number, composed, prompt, document)]
        if script is NORMAL and not streamed:
            exchange.respond(200, fields, parts[0])
            if (
                len(body) <= _MAX_CACHED_BODY
                and b"tool" not in body
                and b"cache_control" not in body
            ):
                before, _, after = parts[0].partition(number.encode())
                if len(self._answers) >= _MAX_CACHED:
                    self._answers.clear()
                self._answers[key] = _CachedAnswer(
                    before, after, prompt.uncached, composed.output_tokens
                )
        else:
            await self._send(exchange, fields, parts, streamed, script, number)
        if script.fault not in faults.UNFINISHED:
            journal.output_tokens += composed.output_tokens
            journal.completed += 1

    def _repeat(self, exchange: Exchange, cached: _CachedAnswer, number: str) -> None:
        body = b"%b%b%b" % (cached.before, number.encode(), cached.after)
        exchange.respond(200, self._fields(_JSON, number), body)
        journal = self.journal
        journal.input_tokens += cached.input_tokens
        journal.output_tokens += cached.output_tokens
        journal.completed += 1

    async def _send(
        self,
        exchange: Exchange,
        fields: Fields,
        parts: Sequence[bytes],
        streamed: bool,
        script: Script,
        number: str,
    ) -> None:
        async def send(exchange: Exchange, parts: Sequence[bytes]) -> None:
            await self._write(exchange, parts, script.pace)

        if script.fault or script.split:
            overloaded = Refusal(529).body("req_01" + number)
            good = faults.Prepared(fields, parts, streamed, overloaded, send)
            if script.fault:
                await faults.SPOILING[script.fault](exchange, good, script)
            else:
                await faults.split(exchange, good, script.split)
        elif streamed:
            exchange.begin(200, fields)
            await send(exchange, parts)
            exchange.end()
        else:
            exchange.respond(200, fields, parts[0])

    async def _write(self, exchange: Exchange, parts: Sequence[bytes], pace: float) -> None:
        """Write each part as a chunk of its own: paced, or as fast as the peer reads."""
        if pace:
            await self.pacer.send(exchange, parts, pace)
            return
        if not exchange.request.http11:
            for part in parts:
                exchange.write(part)
                await exchange.writable()
            return
        burst: list[bytes] = []
        size = 0
        for part in parts:
            burst.append(b"%x\r\n%b\r\n" % (len(part), part))
            size += len(part)
            if size >= _BURST:
                exchange.write_raw(b"".join(burst))
                await exchange.writable()
                burst.clear()
                size = 0
        if burst:
            exchange.write_raw(b"".join(burst))

    async def _replace_answer(self, exchange: Exchange, script: Script, number: str) -> bool:
        """Wait as scripted, then send a fault in place of an answer; whether one was sent."""
        if script.delay:
            await asyncio.sleep(script.delay)
        if script.fault == "status":
            refusal = Refusal(script.status)
            more: Fields = []
            if script.retry_after is not None:
                more = [(b"retry-after", script.retry_after.encode("latin-1"))]
            self.journal.refused += 1
            self._refuse(exchange, refusal, number, more)
            return True
        if script.fault in faults.REPLACING:
            await faults.REPLACING[script.fault](exchange)
            return True
        return False

    # --- other paths ----------------------------------------------------------------

    def _answer_other(self, exchange: Exchange, body: bytes, number: str) -> None:
        request = exchange.request
        method, path = request.method, request.path
        if path == b"/v1/messages/count_tokens":
            if method != b"POST":
                raise Refusal(405, "Method Not Allowed")
            self._answer_count(exchange, body, number)
        elif path in (b"/", b"/api/hello") and method in (b"GET", b"HEAD"):
            exchange.respond(200, self._fields(_JSON, number), b'{"simulated":true}')
        elif path == b"/v1/models" or path.startswith(b"/v1/models/"):
            if method != b"GET":
                raise Refusal(405, "Method Not Allowed")
            self._answer_models(exchange, path, number)
        else:
            raise Refusal(404, "Not found")

    def _answer_count(self, exchange: Exchange, body: bytes, number: str) -> None:
        header = exchange.request.headers.get(b"x-simulate")
        if header is not None:
            script = parse(header.decode("latin-1"))
            if script.fault == "status":
                raise Refusal(script.status)
        document, betas = self._admit(exchange, body)
        ga = exchange.request.headers[b"anthropic-version"] == _GA_VERSION
        strict.check(document, betas, self.seal, counting=True, ga=ga)
        counted: dict[str, Any] = {"input_tokens": cache.count(document)}
        if "context_management" in document:
            counted["context_management"] = {"original_input_tokens": counted["input_tokens"]}
        exchange.respond(200, self._fields(_JSON, number), orjson.dumps(counted))

    def _answer_models(self, exchange: Exchange, path: bytes, number: str) -> None:
        self._authorize(exchange)
        strict.version(exchange.request.headers.get(b"anthropic-version"))
        name = path.removeprefix(b"/v1/models").removeprefix(b"/").decode("latin-1")
        document: dict[str, Any]
        if name:
            if models.find(name) is None:
                raise Refusal(404, f"model: {name}")
            document = models.describe(name)
        else:
            document = {
                "data": [models.describe(item) for item in models.LISTED],
                "has_more": False,
                "first_id": models.LISTED[0],
                "last_id": models.LISTED[-1],
            }
        exchange.respond(200, self._fields(_JSON, number), orjson.dumps(document))

    # --- shared by all paths --------------------------------------------------------

    def _admit(self, exchange: Exchange, body: bytes) -> tuple[Any, frozenset[str]]:
        """The parsed body and the betas of a request, after a check of credential and version."""
        self._authorize(exchange)
        headers = exchange.request.headers
        strict.version(headers.get(b"anthropic-version"))
        value = headers.get(b"anthropic-beta")
        betas = _NO_BETAS
        if value is not None:
            found = self._betas.get(value)
            if found is None:
                found = strict.betas(value)
                if len(self._betas) >= _MAX_BETAS:
                    self._betas.clear()
                self._betas[value] = found
            betas = found
        try:
            return orjson.loads(body), betas
        except orjson.JSONDecodeError as error:
            raise invalid(f"The request body is not valid JSON: {error}") from None

    def _authorize(self, exchange: Exchange) -> None:
        headers = exchange.request.headers
        key = headers.get(b"x-api-key")
        if key is None:
            bearer = headers.get(b"authorization")
            if bearer is None:
                raise Refusal(401, "x-api-key header is required")
            scheme, _, key = bearer.partition(b" ")
            if scheme.lower() != b"bearer" or not key or key == BAD_KEY:
                raise Refusal(401, "Invalid bearer token")
        elif not key or key == BAD_KEY:
            raise Refusal(401, "invalid x-api-key")

    def _refuse(
        self, exchange: Exchange, refusal: Refusal, number: str, more: Sequence[Any] = ()
    ) -> None:
        if exchange.started:
            exchange.close()
            return
        retryable = refusal.status >= 500 or refusal.status in (408, 409, 429)
        retry = (b"x-should-retry", b"true" if retryable else b"false")
        exchange.respond(
            refusal.status,
            [*self._fields(_JSON, number), retry, *more],
            refusal.body("req_01" + number),
        )

    def _fields(self, kind: tuple[bytes, bytes], number: str) -> Fields:
        """The header fields of an answer, as the real API sends them.

        Some of them must not pass a relay: cookies, the organization, its limits.
        """
        now = time.monotonic()
        if now > self._common_expires:
            self._common_expires = now + 1
            self._common = _common_fields(time.time())
        return [kind, (b"request-id", b"req_01" + number.encode()), *self._common]

    # --- control --------------------------------------------------------------------

    async def _answer_control(self, exchange: Exchange) -> None:
        method, path = exchange.request.method, exchange.request.path
        body = await exchange.body()
        try:
            if (method, path) == (b"GET", b"/simulate/requests"):
                exchange.respond(200, [_JSON], orjson.dumps(self.journal.report()))
            elif (method, path) == (b"DELETE", b"/simulate/requests"):
                self.journal.clear()
                exchange.respond(204, [], b"")
            elif (method, path) == (b"PUT", b"/simulate/script"):
                self.scripts = deque(parse_list(body))
                exchange.respond(200, [_JSON], b'{"scripts":%d}' % len(self.scripts))
            else:
                raise Refusal(404, "Not found")
        except Refusal as refusal:
            exchange.respond(refusal.status, [_JSON], refusal.body("req_control"))


def _common_fields(now: float) -> Fields:
    """The fields of every answer, as one field whose value contains the other lines.

    To join twenty fields for each answer would be a tenth of the work for a small request.
    """
    reset = rfc3339(now + 60).encode()
    fields = [
        (b"anthropic-organization-id", ORGANIZATION),
        (b"set-cookie", b"_cfuvid=simulated.1; HttpOnly; SameSite=None; Secure; Path=/"),
        (b"server", b"cloudflare"),
        (b"cf-ray", b"8c0ffee0c0ffee00-SIM"),
        (b"x-envoy-upstream-service-time", b"1"),
        (b"strict-transport-security", b"max-age=31536000; includeSubDomains; preload"),
        (b"x-robots-tag", b"none"),
    ]
    for kind, limit in (
        (b"requests", b"4000"),
        (b"tokens", b"2400000"),
        (b"input-tokens", b"2000000"),
        (b"output-tokens", b"400000"),
    ):
        name = b"anthropic-ratelimit-" + kind
        fields += [
            (name + b"-limit", limit),
            (name + b"-remaining", b"%d" % (int(limit) - 1)),
            (name + b"-reset", reset),
        ]
    first, value = fields[0]
    return [(first, b"\r\n".join([value, *(b"%b: %b" % field for field in fields[1:])]))]
