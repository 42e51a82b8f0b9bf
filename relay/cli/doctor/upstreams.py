"""Each upstream, with the relay's own connections: its name, TLS, key, one request, one stream.

A request asks for one token, so that it costs next to nothing.

Decides what an answer says about the upstream. Must not know the running relay.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import orjson

from relay import config
from relay.cli.doctor.findings import Finding, fault, passed, warning
from relay.errors import RelayError
from relay.net.deadlines import Deadlines
from relay.net.runner import CoroutineRunner
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.connection import FailureKind, UpstreamError
from relay.net.upstream.resolver import Resolver
from relay.pool.upstream import Upstream
from relay.wire.events import Response

_FIELDS: Final = b"content-type: application/json\r\nanthropic-version: 2023-06-01\r\n"
_ANSWER_SECONDS: Final = 30.0
_CLOCK_SECONDS: Final = 30.0
_REMEDIES: Final = {
    FailureKind.CONNECT: "check base_url, DNS, the firewall, and upstream.egress",
    FailureKind.TLS: "check base_url and upstream.ca, and this machine's clock",
    FailureKind.SILENT: "try again; is it the right base_url?",
    FailureKind.CLOSED: "is it the right base_url, and does it speak HTTP/1.1?",
    FailureKind.GARBAGE: "is it the right base_url?",
}
_STATUS_REMEDIES: Final = {
    401: "check upstream.api_key and upstream.auth",
    402: "pay the vendor's bill",
    403: "check the account, upstream.api_key, and whether the vendor serves this region",
    404: "check base_url (without /v1) and the model's name at this upstream (model.routes)",
    429: "wait for the plan's limit, or add an upstream",
}

T = TypeVar("T")


def examine(settings: config.Settings) -> list[Finding]:
    """All findings, upstream after upstream."""
    return asyncio.run(_examine(settings))


async def _examine(settings: config.Settings) -> list[Finding]:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    deadlines.start()
    resolver = Resolver()
    found: list[Finding] = []
    try:
        for one in settings.upstream:
            what = f"upstream {one.name}"
            try:
                upstream = Upstream(one, settings, deadlines, resolver)
            except ValueError as error:
                found.append(fault(what, str(error), "correct it in relay.toml"))
                continue
            model = next(_models(settings, one), None)
            if model is None:
                found.append(
                    warning(what, "no model has a route to it", "add one, or remove the upstream")
                )
                continue
            for stream in (False, True):
                one_request = _request(upstream, model, stream, deadlines)
                result = await _in_runner(_judged(what, model, stream, one_request))
                found += result
                if any(finding.level == "fault" for finding in result):
                    break
            upstream.pool.close()
    finally:
        deadlines.stop()
    return found


def _models(settings: config.Settings, upstream: config.UpstreamSettings) -> Iterator[str]:
    """The names that the upstream's models have there."""
    vendor = config.vendor_of(settings, upstream)
    for model in settings.model:
        if model.routes is None:
            if config.serves(vendor, model.id):
                yield model.id
        else:
            yield from (
                route.model or model.id for route in model.routes if route.upstream == upstream.name
            )


async def _in_runner(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that awaits the relay's own waiters, see `net.runner`."""
    done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        try:
            done.set_result(await coroutine)
        except Exception as error:
            done.set_exception(error)

    CoroutineRunner(run()).step()
    return await done


async def _request(
    upstream: Upstream, model: str, stream: bool, deadlines: Deadlines
) -> tuple[Response, bytes]:
    """One request's head and payload. Raises UpstreamError or RelayError."""
    document = {
        "model": model,
        "max_tokens": 1,
        "stream": stream,
        "messages": [{"role": "user", "content": "hi"}],
    }
    body = orjson.dumps(document)
    head = upstream.messages_head(_FIELDS, len(body), counting=False)
    connection = await upstream.pool.connect()
    try:
        answer = connection.send(head, body)
        connection.deadline = min(connection.deadline, deadlines.now + _ANSWER_SECONDS)
        response = await answer
        encoded = b"content-encoding" in response.headers
        reader = ResponseBody(connection, response, keep_framing=False, unfold=encoded)
        await reader.look_ahead()
        return response, upstream.without_credential(reader.payload)
    finally:
        connection.close()


async def _judged(
    what: str, model: str, stream: bool, asked: Coroutine[Any, Any, tuple[Response, bytes]]
) -> list[Finding]:
    kind = "a stream" if stream else "a request"
    began = time.monotonic()
    try:
        response, payload = await asked
    except UpstreamError as failure:
        remedy = _REMEDIES.get(failure.kind, "see relay/docs/operating.md")
        return [fault(what, f"{kind} failed: {failure}", remedy)]
    except RelayError as error:
        return [fault(what, f"{kind} failed: {error.message}", "raise `ulimit -n`")]
    found = [] if stream else list(_clock(response))
    seconds = time.monotonic() - began
    if response.status != 200:
        words = payload[:200].decode(errors="replace")
        remedy = _STATUS_REMEDIES.get(response.status, "the answer says why")
        problem = f"{kind} for {model} got {response.status}: {words}"
        level = warning if response.status in (429, 529) else fault
        return [*found, level(what, problem, remedy)]
    complete = b"message_stop" in payload if stream else b'"usage"' in payload
    if not complete:
        return [
            *found,
            fault(what, f"{kind} for {model} came without its end", _REMEDIES[FailureKind.GARBAGE]),
        ]
    return [*found, passed(what, f"{kind} for {model} in {seconds:.1f} s")]


def _clock(response: Response) -> Iterator[Finding]:
    """This machine's clock, by the `date` field of an upstream."""
    try:
        theirs = parsedate_to_datetime(response.headers[b"date"].decode("latin-1")).timestamp()
    except (KeyError, ValueError, TypeError):
        return
    off = time.time() - theirs
    if abs(off) > _CLOCK_SECONDS:
        yield fault(
            "clock", f"this machine's clock is {off:+.0f} s off the upstream's",
            "run `timedatectl set-ntp true`: limits and certificates go by the clock",
        )  # fmt: skip
    else:
        yield passed("clock", f"within {max(1, round(abs(off)))} s of the upstream's")
