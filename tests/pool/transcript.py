"""A player for transcripts of the pool: one event a line, and the decisions that follow from it.

    request a            → one (turn)
    fail a 429 retry=30  → account +30
    again a              → two (turn)
    clock +31
    request b            → one (turn)

Everything but the clock is real: upstreams, health, leases, selection, affinity, polls, ledger.
Nothing is sent: the transcript says how each request ends. Events, with the names of requests
and upstreams:

    request NAME [caller=K] [talk=T] [model=M] [tokens=N] [counting]     a request arrives
    again NAME            it goes on to another upstream, as after a failure
    answer NAME           its answer begins            end NAME      its answer is complete
    fail NAME STATUS [retry=S] [error=TYPE] [says=WORDS_WITH_UNDERSCORES]  it is refused
    fail NAME KIND        it gets no answer            cut NAME KIND its answer breaks off
    leave NAME            its caller leaves
    clock +SECONDS        time passes, and deadlines are checked
    pause|resume|clear UPSTREAM                        as the operator does
    restart               a new pool with the stored pauses
    due                   the polls that are due start
    poll UPSTREAM NUMBER  a poll is answered with this quota
    probes                the relay's own probes that are due start
    probe UPSTREAM ok|fails                            a probe is answered or fails
    state                 the operator's view, with the outages of the caller k

Decisions: `one (turn)` a lease and its reason, `waits`, `account +30` a verdict with a stated
time, `account ~60` with a guessed one, and an error as `503 retry-after=30 "…"`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from relay import config
from relay.errors import RelayError
from relay.net.deadlines import Deadlines
from relay.net.runner import CoroutineRunner
from relay.net.upstream.connection import FailureKind
from relay.pool.affinity import Bindings
from relay.pool.leases import Lease, Upstreams
from relay.pool.plan_polling import PollState
from relay.pool.routes import Routes
from relay.pool.selection import RoutingRequest
from relay.pool.upstream import Upstream
from relay.pool.vendor_errors import Scope, Verdict, of_failure
from relay.quota.ledger import Ledger
from relay.store import pauses
from relay.store.database import Database
from tests.fakes.live import MODELS, PLANS

Options = dict[str, dict[str, Any]]

EPOCH = 1_000_000.0  # the clock of every transcript begins at 1970-01-12T13:46:40Z
MODEL_IDS = {"sonnet": "claude-sonnet-4-7", "opus": "claude-opus-4-8"}
VENDORS = [
    {"name": "plan", "quota": {"path": "/usage", "left": "usage.remaining", "every": 300.0}},
]


class Clock:
    """The time of a transcript, in the place of a loop's clock; nothing runs by itself."""

    def __init__(self) -> None:
        self.now = EPOCH

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """The next sweep: the transcript makes it."""
        return asyncio.TimerHandle(0.0, callback, (), asyncio.get_running_loop())


class _Request:
    """One request of a transcript."""

    def __init__(self, name: str, routing: RoutingRequest, model: str) -> None:
        self.name = name
        self.routing = routing
        self.model = model
        self.lease: Lease | None = None
        self.runner: CoroutineRunner | None = None

    @property
    def place(self) -> Lease:
        assert self.lease is not None, f"{self.name} has no lease"
        return self.lease


class Player:
    """A pool made of `upstreams`, by name with their settings; `pool` has the pool's own."""

    def __init__(
        self,
        upstreams: Options,
        pool: dict[str, Any] | None = None,
        database: Database | None = None,
    ) -> None:
        rows = [
            {"name": name, "base_url": "http://upstream.invalid", "api_key": "k", **more}
            for name, more in upstreams.items()
        ]
        sections = {"upstream": rows, "model": MODELS, "plan": PLANS, "vendor": VENDORS}
        self._settings = config.parse({**sections, "pool": pool or {}})
        self._database = database
        self._clock = Clock()
        self._bindings = Bindings(300.0)
        self._decisions: list[str] = []
        self._start()

    def _start(self) -> None:
        clock, settings = self._clock, self._settings
        self._deadlines = Deadlines(clock)  # type: ignore[arg-type]
        made = [Upstream(one, settings, self._deadlines) for one in settings.upstream]
        self._routes = Routes(settings.model, made, config.ModelNames(settings.model))
        self._pool = Upstreams(made, settings.pool, Ledger(), self._deadlines, clock.time)
        self._polls = [
            PollState(one, one.vendor.quota, clock.now) for one in made if one.vendor.quota
        ]
        self._requests: dict[str, _Request] = {}

    async def play(self, transcript: str) -> list[str]:
        """Play every event of `transcript`; its lines, each with the decisions as they fell."""
        played = []
        for event, _ in lines_of(transcript):
            self._decisions = []
            word, *arguments = event.split()
            await getattr(self, f"_on_{word}")(*arguments)
            for _ in range(3):  # the pool serves its queue on the loop's next turn
                await asyncio.sleep(0)
            played.append(line(event, "; ".join(self._decisions)))
        return played

    # --- requests ---

    async def _on_request(self, name: str, *options: str) -> None:
        values = dict(one.split("=") for one in options if "=" in one)
        model = MODEL_IDS[values.get("model", "sonnet")]
        route = self._routes.find(model)
        tokens = int(values.get("tokens", 0))
        caller = values.get("caller", "k")
        routing = RoutingRequest(caller, route, "counting" in options, tokens)
        if "talk" in values and len(route.targets) > 1:
            routing.conversation = values["talk"].encode()
            now = self._clock.now
            binding = self._bindings.find(caller, routing.conversation, now)
            if binding is not None and binding.until > now:
                routing.bound = binding.upstream
        request = self._requests[name] = _Request(name, routing, model)
        self._take(request)

    async def _on_again(self, name: str) -> None:
        self._take(self._requests[name])

    def _take(self, request: _Request) -> None:
        request.lease = self._pool.take(request.routing)
        if request.lease is not None:
            self._note(f"{request.lease.target.upstream.name} ({request.lease.choice})")
            return
        noted = len(self._decisions)
        request.runner = CoroutineRunner(self._wait(request))
        request.runner.step()
        if len(self._decisions) == noted:
            self._note("waits")

    async def _wait(self, request: _Request) -> None:
        try:
            request.lease = await self._pool.wait(request.routing)
        except RelayError as error:
            self._note(f"{request.name}: {shown(error)}")
        except asyncio.CancelledError:
            self._note(f"{request.name} leaves the queue")
        else:
            name = request.lease.target.upstream.name
            self._note(f"{request.name}: {name} ({request.lease.choice})")

    async def _on_answer(self, name: str) -> None:
        request = self._requests[name]
        target, routing = request.place.target, request.routing
        target.upstream.answered += 1
        if not routing.counting:
            target.upstream.health.succeeded(target.name, routing.account)
        if routing.conversation is not None:
            family = target.upstream.vendor.thinking
            self._bindings.hold(
                (routing.caller, routing.conversation),
                target.upstream.name,
                family,
                self._clock.now,
            )

    async def _on_end(self, name: str) -> None:
        lease = self._requests[name].place
        lease.target.upstream.health.failures = 0
        self._pool.release(lease)

    async def _on_fail(self, name: str, how: str, *options: str) -> None:
        request = self._requests[name]
        self.fail(name, self._verdict(request.place.target.upstream, how, options, request))

    def fail(self, name: str, verdict: Verdict) -> None:
        """A request is refused, or gets no answer."""
        request = self._requests[name]
        self._failed(request, verdict)
        self._pool.release(request.place, used=False)
        request.routing.tried += (request.place.target.upstream,)

    def upstream_of(self, name: str) -> str:
        """The upstream that a request has a place at."""
        return self._requests[name].place.target.upstream.name

    async def _on_cut(self, name: str, kind: str) -> None:
        request = self._requests[name]
        self._failed(request, of_failure(FailureKind[kind.upper()]))
        self._pool.release(request.place)

    async def _on_leave(self, name: str) -> None:
        request = self._requests[name]
        if request.lease is None:
            assert request.runner is not None
            request.runner.cancel()
            return
        request.lease.target.upstream.health.abandoned()
        self._pool.release(request.lease)

    def _verdict(
        self, upstream: Upstream, how: str, options: tuple[str, ...], request: _Request
    ) -> Verdict:
        now = self._clock.now
        if not how.isdigit():
            return of_failure(FailureKind[how.upper()])
        values = dict(one.split("=") for one in options)
        headers = {b"retry-after": values["retry"].encode()} if "retry" in values else {}
        kind = values.get("error", "api_error")
        words = values.get("says", "no").replace("_", " ")
        body = b'{"type":"error","error":{"type":"%b","message":"%b"}}' % (
            kind.encode(),
            words.encode(),
        )
        counting = request.routing.counting
        return upstream.error_classifier.judge(
            int(how), headers, body, request.model, now, counting
        )

    def _failed(self, request: _Request, verdict: Verdict) -> None:
        target, now, routing = request.place.target, self._clock.now, request.routing
        health = target.upstream.health
        if not routing.counting:
            health.failed(verdict, target.name, now, routing.account)
        elif verdict.scope is Scope.FEATURE:
            health.cannot_count(now + 3600, routing.account)
        seconds = verdict.until - now
        sign = "+" if verdict.stated else "~"
        self._note(verdict.scope.value + (f" {sign}{seconds:g}" if verdict.until else ""))

    # --- time and the operator ---

    async def _on_clock(self, seconds: str) -> None:
        self._clock.now += float(seconds)
        self._deadlines.start()  # one sweep

    async def _on_pause(self, name: str) -> None:
        self._named(name).health.pause()
        if self._database is not None:
            await pauses.pause(self._database, name, self._clock.now)

    async def _on_resume(self, name: str) -> None:
        self._named(name).health.resume()
        self._pool.wake()
        if self._database is not None:
            await pauses.resume(self._database, name)

    async def _on_clear(self, name: str) -> None:
        self._named(name).health.clear()
        self._pool.wake()

    async def _on_restart(self) -> None:
        self._start()
        assert self._database is not None
        for name in await pauses.paused(self._database):
            self._named(name).health.pause()

    async def _on_state(self) -> None:
        now = self._clock.now
        for upstream in self._pool:
            described = upstream.health.describe("", now, "k")
            state = str(upstream.health.view(now)["state"])
            self._note(f"{upstream.name} {state}" + (f" ({described})" if described else ""))

    # --- polls ---

    async def _on_due(self) -> None:
        now = self._clock.now
        for poll in self._polls:
            if poll.is_due(now):
                poll.start(now)
                self._note(poll.upstream.name)

    async def _on_poll(self, name: str, number: str) -> None:
        [poll] = [one for one in self._polls if one.upstream.name == name]
        assert poll.polled_at is not None
        ended = poll.record({"usage": {"remaining": number}}, poll.polled_at)
        self._note(f"{poll.upstream.quota_left} left" + (", its outage ends" if ended else ""))
        if ended:
            self._pool.wake()

    async def _on_probes(self) -> None:
        for upstream in self._pool:
            if upstream.health.probe_at <= self._clock.now:
                upstream.health.probe_started()
                self._note(upstream.name)

    async def _on_probe(self, name: str, result: str) -> None:
        health = self._named(name).health
        if result == "ok":
            health.probe_answered()
        else:
            health.probe_failed("a probe: 500", self._clock.now)

    def _named(self, name: str) -> Upstream:
        upstream = self._pool.named(name)
        assert upstream is not None
        return upstream

    def _note(self, decision: str) -> None:
        self._decisions.append(decision)


def shown(error: RelayError) -> str:
    """An error as its caller sees it: status, header fields, message."""
    fields = "".join(f" {name.decode()}={value.decode()}" for name, value in error.headers)
    return f'{error.kind.status}{fields} "{error.message}"'


def lines_of(transcript: str) -> list[tuple[str, str]]:
    """Each line's event and its decisions. Blank lines and comments are left out; a line without
    an event continues the decisions of the one before."""
    rows: list[tuple[str, str]] = []
    for text in transcript.splitlines():
        event, _, decisions = text.partition(" #")[0].partition("→")
        if event.strip():
            rows.append((" ".join(event.split()), decisions.strip()))
        elif decisions:
            event, before = rows[-1]
            rows[-1] = (event, f"{before} {decisions.strip()}")
    return rows


def line(event: str, decisions: str) -> str:
    """One line in its canonical form."""
    return f"{event} → {decisions}" if decisions else event


async def check(
    transcript: str,
    upstreams: Options,
    pool: dict[str, Any] | None = None,
    database: Database | None = None,
) -> None:
    """Play a transcript on a pool made of `upstreams`; the decisions must be those it states."""
    player = Player(upstreams, pool, database)
    stated = [line(event, decisions) for event, decisions in lines_of(transcript)]
    assert await player.play(transcript) == stated
