"""The pool of upstreams as one for all processes: its messages between the owner and the workers.

    pool_ask        a worker → owner    the state of an upstream is wanted
    pool_state      owner → workers     an upstream's health, costs and quota
    health          both ways           a change of an upstream's health
    health_made     owner → a worker    its oldest unconfirmed change was made
    places_…        both ways           see `pool.places` and `pool.held_places`
    costs           both ways           costs that the other process does not know
    quota           owner → workers     the quota that is left in an upstream's plan
    bindings        both ways           new, moved and extended bindings
    threads         both ways           the upstreams of messages

Decides when costs are sent, and in what pieces a new worker gets the bindings. Must not know how
the pool uses any of this.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol

from relay.pool.affinity import Bindings
from relay.pool.health_state import State
from relay.pool.held_places import HeldPlaces
from relay.pool.leases import Upstreams
from relay.pool.places import PlaceBank
from relay.pool.shared_bindings import Row, SharedBindings, SharedThreads, pieces
from relay.pool.sharing import OwnersHealth, WorkersHealth, place_of
from relay.pool.spending import Costs, Exchanged
from relay.pool.threads import Threads
from relay.pool.upstream import Upstream
from relay.workers.link import Link

_FLUSH_SECONDS: Final = 0.1  # between two looks for costs to send
_PIECE_SECONDS: Final = 0.005  # between two pieces of all bindings
_THIS: Final = "owner"  # among the processes that hold places

_Member = Link | str


class Sharing(Protocol):
    """A process with a pool."""

    upstreams: Upstreams
    bindings: Bindings
    threads: Threads


class Workers(Protocol):
    """See `owner.Workers`."""

    on_joined: list[Callable[[Link], None]]
    on_gone: list[Callable[[Link], None]]

    def on(self, kind: str, handler: Callable[..., None]) -> None:
        """Call `handler` with the link and the values of each message of this kind."""

    def broadcast(self, kind: str, *values: object, but: Link | None = None) -> None:
        """Send a message to all workers but one."""


def share_pool_as_owner(app: Sharing, workers: Workers) -> "OwnersPool":
    """Share the pool of this process with the workers. Before they start."""
    return OwnersPool(app, workers)


def share_pool_as_worker(app: Sharing, link: Link) -> "WorkersPool":
    """Use the pool as the owner shares it. Before the worker joins."""
    return WorkersPool(app, link)


def _repeat(callback: Callable[[], None]) -> None:
    """Call back now and every `_FLUSH_SECONDS`, as long as the loop runs."""
    asyncio.get_running_loop().call_later(_FLUSH_SECONDS, _repeat, callback)
    callback()


class _OwnersLending:
    """See `places.Lending`: to a worker by its link, to this process on the loop's next turn."""

    def __init__(self) -> None:
        self.here: HeldPlaces | None = None
        self._loop = asyncio.get_running_loop()

    def lend(self, to: _Member, place: str, callers: list[str], more: int) -> None:
        if isinstance(to, Link):
            to.send("places_lent", place, callers, more)
        elif self.here is not None:
            self._loop.call_soon(self.here.lend, place, callers, more)

    def demand(self, of: _Member, place: str, *, on: bool) -> None:
        if isinstance(of, Link):
            of.send("places_demanded", place, on)
        elif self.here is not None:
            self._loop.call_soon(partial(self.here.demand, place, on=on))

    def none_free(self, to: _Member, place: str) -> None:
        if isinstance(to, Link):
            to.send("places_none", place)
        elif self.here is not None:
            self._loop.call_soon(self.here.none_free, place)


class _OwnBorrowing:
    """See `held_places.Borrowing`: of the owner, from its own bank."""

    def __init__(self, bank: PlaceBank[_Member]) -> None:
        self._bank = bank

    def want(self, place: str, callers: dict[str, int]) -> None:
        self._bank.want(_THIS, place, callers)

    def give_back(self, place: str, number: int, *, reply: bool) -> None:
        self._bank.give_back(_THIS, place, number, reply=reply)

    def claim(self, place: str, number: int) -> None:
        self._bank.claim(_THIS, place, number)


class _LinkBorrowing:
    """See `held_places.Borrowing`: of a worker, over its link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def want(self, place: str, callers: dict[str, int]) -> None:
        self._link.send("places_wanted", place, callers)

    def give_back(self, place: str, number: int, *, reply: bool) -> None:
        self._link.send("places_back", place, number, reply)

    def claim(self, place: str, number: int) -> None:
        self._link.send("places_claimed", place, number)


class OwnersPool:
    """The owner's side."""

    def __init__(self, app: Sharing, workers: Workers) -> None:
        self._app = app
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._upstreams: dict[str, Upstream] = {}
        self._exchanged: dict[Link, dict[str, Exchanged]] = {}
        self._quotas: dict[str, int | None] = {}  # as the workers know them
        self._health: OwnersHealth[Link] = OwnersHealth(
            self._publish, self._publish_state, lambda link, place: link.send("health_made", place)
        )
        lending = _OwnersLending()
        self._bank: PlaceBank[_Member] = PlaceBank(lending)
        self._bank.join(_THIS)
        self._places = lending.here = HeldPlaces(app.upstreams, _OwnBorrowing(self._bank))
        self._bindings = SharedBindings(
            app.bindings, partial(workers.broadcast, "bindings"), partial(_is_sticky, app)
        )
        self._threads = SharedThreads(app.threads, partial(workers.broadcast, "threads"))
        self._listen()
        workers.on_joined.append(self._on_joined)
        workers.on_gone.append(self._on_gone)
        app.upstreams.on_replaced.append(self._attach)
        self._attach()
        _repeat(self._flush)

    def _listen(self) -> None:
        on, bank = self._workers.on, self._bank
        on("pool_ask", self._send_state)
        on("health", self._take_health)
        on("places_wanted", bank.want)
        on("places_back", lambda link, place, number, reply: bank.give_back(
            link, place, number, reply=reply
        ))  # fmt: skip
        on("places_claimed", bank.claim)
        on("costs", self._take_costs)
        on("bindings", self._take_bindings)
        on("threads", self._take_threads)

    def _attach(self) -> None:
        """Share the present upstreams."""
        upstreams = self._app.upstreams
        self._upstreams = {place_of(one): one for one in upstreams}
        self._health.attach({place: one.health for place, one in self._upstreams.items()})
        self._bank.configure({at: one.max_concurrency for at, one in self._upstreams.items()})
        self._places.attach()

    # --- workers ---

    def _on_joined(self, link: Link) -> None:
        self._exchanged[link] = {}
        self._bank.join(link)
        for place in self._upstreams:
            self._send_state(link, place)
        for piece in pieces(self._threads.rows()):
            link.send("threads", piece)
        self._send_bindings(link, list(pieces(self._bindings.conversations())))

    def _on_gone(self, link: Link) -> None:
        if self._exchanged.pop(link, None) is not None:
            self._bank.leave(link)
            self._health.forget(link)

    def _send_bindings(self, link: Link, remaining: list[list[Any]]) -> None:
        """The latest held come first: these are the likeliest to go on."""
        if not remaining or link.closed:
            return
        now = monotonic()
        found = (self._bindings.row(one, now) for one in remaining.pop())
        link.send("bindings", [row for row in found if row is not None])
        self._loop.call_later(_PIECE_SECONDS, self._send_bindings, link, remaining)

    def _send_state(self, link: Link, place: str) -> None:
        exchanged, state = self._exchanged.get(link), self._health.state(place)
        if exchanged is None or state is None:
            return
        upstream = self._upstreams[place]
        known = exchanged[place] = Exchanged()
        link.send(
            "pool_state", place, state, known.know_all(upstream.spending), upstream.quota_left
        )

    # --- health ---

    def _publish(self, place: str, change: str, values: list[Any], but: Link | None) -> None:
        self._workers.broadcast("health", place, change, values, but=but)

    def _publish_state(self, place: str, state: State) -> None:
        for link in list(self._exchanged):
            self._send_state(link, place)

    def _take_health(self, link: Link, place: str, change: str, values: list[Any]) -> None:
        self._health.take(link, place, change, values)
        self._app.upstreams.wake()

    # --- costs and quotas ---

    def _flush(self) -> None:
        for link, exchanged in self._exchanged.items():
            _send_costs(link, self._upstreams, exchanged)
        for place, upstream in self._upstreams.items():
            if self._quotas.get(place) != upstream.quota_left:
                self._quotas[place] = upstream.quota_left
                self._workers.broadcast("quota", place, upstream.quota_left)
        self._bindings.send_due(monotonic())

    def _take_costs(self, link: Link, place: str, costs: list[Any]) -> None:
        upstream = self._upstreams.get(place)
        exchanged = self._exchanged.get(link, {}).get(place)
        if upstream is not None and exchanged is not None:
            now = self._app.upstreams.now()
            exchanged.add(_read_costs(costs), upstream.spending, now)

    # --- bindings and threads ---

    def _take_bindings(self, link: Link, rows: list[Row]) -> None:
        news = self._bindings.take(rows)
        if news:
            self._workers.broadcast("bindings", news, but=link)

    def _take_threads(self, link: Link, rows: list[Row]) -> None:
        self._threads.take(rows)
        self._workers.broadcast("threads", rows, but=link)


class WorkersPool:
    """A worker's side."""

    def __init__(self, app: Sharing, link: Link) -> None:
        self._app = app
        self._link = link
        self._upstreams: dict[str, Upstream] = {}
        self._exchanged: dict[str, Exchanged] = {}
        self._known: set[str] = set()  # upstreams whose state has come
        self._health = WorkersHealth(partial(link.send, "health"), partial(link.send, "pool_ask"))
        self._places = HeldPlaces(app.upstreams, _LinkBorrowing(link))
        self._bindings = SharedBindings(
            app.bindings, partial(link.send, "bindings"), partial(_is_sticky, app)
        )
        self._threads = SharedThreads(app.threads, partial(link.send, "threads"))
        self._listen()
        app.upstreams.on_replaced.append(self._attach)
        self._attach()
        _repeat(self._flush)

    def _listen(self) -> None:
        on, places = self._link.on, self._places
        on("pool_state", self._take_state)
        on("health", self._take_health)
        on("health_made", self._health.take_confirmation)
        on("places_lent", places.lend)
        on("places_demanded", lambda place, on: places.demand(place, on=on))
        on("places_none", places.none_free)
        on("costs", self._take_costs)
        on("quota", self._take_quota)
        on("bindings", self._take_bindings)
        on("threads", self._threads.take)

    def _attach(self) -> None:
        """Share the present upstreams."""
        upstreams = self._app.upstreams
        before, self._upstreams = self._upstreams, {place_of(one): one for one in upstreams}
        for place, upstream in self._upstreams.items():
            if before.get(place) is not upstream:
                self._known.discard(place)
                exchanged = self._exchanged[place] = Exchanged()
                exchanged.know_all(upstream.spending)
        self._health.attach({place: one.health for place, one in self._upstreams.items()})
        self._places.attach()

    def _take_state(
        self, place: str, state: State, costs: list[Any], quota_left: int | None
    ) -> None:
        upstream = self._upstreams.get(place)
        if upstream is None:
            return
        self._health.take_state(place, state)
        now = self._app.upstreams.now()
        self._exchanged[place].begin(_read_costs(costs), upstream.spending, now)
        upstream.quota_left = quota_left
        self._known.add(place)
        self._places.renew(place)
        self._app.upstreams.wake()

    def _take_health(self, place: str, change: str, values: list[Any]) -> None:
        self._health.take(place, change, values)
        self._app.upstreams.wake()

    def _flush(self) -> None:
        known = {at: one for at, one in self._upstreams.items() if at in self._known}
        _send_costs(self._link, known, self._exchanged)
        self._bindings.send_due(monotonic())

    def _take_costs(self, place: str, costs: list[Any]) -> None:
        upstream = self._upstreams.get(place)
        if upstream is not None and place in self._known:
            now = self._app.upstreams.now()
            self._exchanged[place].add(_read_costs(costs), upstream.spending, now)

    def _take_bindings(self, rows: list[Row]) -> None:
        self._bindings.take(rows)

    def _take_quota(self, place: str, quota_left: int | None) -> None:
        upstream = self._upstreams.get(place)
        if upstream is not None:
            upstream.quota_left = quota_left


def _send_costs(
    link: Link, upstreams: dict[str, Upstream], exchanged: dict[str, Exchanged]
) -> None:
    """Send the costs that the other process does not know."""
    for place, upstream in upstreams.items():
        if place in exchanged:
            costs = exchanged[place].unknown(upstream.spending)
            if costs is not None:
                link.send("costs", place, costs)


def _read_costs(values: list[Any]) -> Costs:
    day, day_end, month, month_end = values
    return (day, day_end, month, month_end)


def _is_sticky(app: Sharing) -> bool:
    return app.upstreams.settings.sticky != "off"
