"""What one process holds in a ledger, by value, so that another process can go on with it.

During a hand-over the limits and balances move to a new process, while requests of the old one
still hold quota. The new ledger counts it as held (`join`) until the old process closes each
reservation (`close`) or dies (`leave`).

Decides how a reservation is described. Must not know processes or sockets.
"""

from collections.abc import Iterable

from relay.quota.held import HeldFurther, HeldQuota, Share, State, add, place
from relay.quota.ledger import Ledger
from relay.quota.plans import HOUR
from relay.quota.state import LimitCounters, Reservation


class RemoteReservation(Reservation):
    """A reservation in another process's ledger, which `held` describes."""

    __slots__ = ("held",)

    held: HeldQuota


def describe(reservation: Reservation) -> HeldQuota:
    """A reservation by value."""
    if isinstance(reservation, RemoteReservation):
        return reservation.held
    key_state, counters = reservation.key_state, reservation.counters
    names = {id(bucket): name for name, bucket in counters.all_buckets.items()}
    requests = [(*names[id(one)], mark) for one, mark in reservation.requests if id(one) in names]
    tokens = [
        (*names[id(one)], amount, mark)
        for one, amount, mark in reservation.tokens
        if id(one) in names
    ]
    return HeldQuota(
        counters.scope, counters.owner, key_state.key, key_state.account,
        requests, tokens, reservation.balance is not None, reservation.cost,
        [
            HeldFurther(
                one.counters.scope,
                one.counters.owner,
                [(limit.kind, limit.per, amount, mark) for limit, _, amount, mark in one.taken],
            )
            for one in reservation.further
        ],
    )  # fmt: skip


def state_of(ledger: Ledger, others: Iterable[Share]) -> State:
    """The state to hand over. `others` are the shares of earlier processes in it."""
    share = Share(
        {state.key: state.in_flight for state in ledger.key_states() if state.in_flight},
        {place(one.scope, one.owner): one.in_flight for one in ledger.counters() if one.in_flight},
        {one.account: one.held for one in ledger.balances() if one.held},
    )
    for name, number in ledger.inherited.items():
        add(share.keys, name, number)
    marks = [
        (place(one.scope, one.owner), kind, per, bucket.mark)
        for one in ledger.counters()
        if one.in_flight
        for (kind, per), bucket in one.all_buckets.items()
    ]
    for other in others:
        share.subtract(other)
    return State(ledger.changes(), marks, share)


def join(ledger: Ledger, state: State) -> None:
    """Take over a ledger's state, once the rows of its database are restored."""
    ledger.restore(state.rows, written=False)
    for name, kind, per, mark in state.marks:
        bucket = _counters(ledger, name).all_buckets.get((kind, per))
        if bucket is not None:
            bucket.mark = mark
    hold(ledger, state.share)


def hold(ledger: Ledger, share: Share, sign: int = 1) -> None:
    """Count what another process holds; with -1, count it no more."""
    for key, number in share.keys.items():
        _count_key(ledger, key, sign * number)
    for name, number in share.counters.items():
        _counters(ledger, name).in_flight += sign * number
    for account, micro in share.held.items():
        ledger.balance(account).held += sign * micro


def close(
    ledger: Ledger, held: HeldQuota, now: float, use: tuple[int | None, int | None] | None
) -> None:
    """Close another process's reservation. `use`: tokens and micro-dollars, each None for as much
    as was held; None: nothing was used."""
    moment = int(now * 1000)
    counters = _counters(ledger, place(held.scope, held.owner))
    buckets = counters.all_buckets
    if use is None:
        for kind, per, mark in held.requests:
            if (bucket := buckets.get((kind, per))) is not None:
                bucket.give_back(1, mark, moment)
    used = 0 if use is None else use[0]
    for kind, per, amount, mark in held.tokens:
        bucket = buckets.get((kind, per))
        if bucket is None or used is None:
            continue
        if used < amount:
            bucket.give_back(amount - used, mark, moment)
        elif used > amount:
            bucket.charge(used - amount, mark, moment)
    counters.in_flight -= 1
    ledger.mark_changed(counters)
    for further in held.further:
        _close_further(ledger, further, moment, use)
    _count_key(ledger, held.key, -1)
    if held.prepaid:
        balance = ledger.balance(held.account)
        balance.held -= held.cost
        cost = 0 if use is None else held.cost if use[1] is None else use[1]
        if cost:
            balance.charged += cost
            ledger.mark_changed(balance)


def _close_further(
    ledger: Ledger, held: HeldFurther, now: int, use: tuple[int | None, int | None] | None
) -> None:
    counters = ledger.counters_of(held.scope, held.owner)
    for kind, per, amount, mark in held.taken:
        bucket = counters.all_buckets.get((kind, per))
        if bucket is None:
            continue
        if use is None:
            if kind != "requests" or per > HOUR:
                bucket.give_back(amount, mark, now)
            continue
        used = use[0] if kind == "tokens" else use[1]
        if kind == "requests" or use[0] is None or used is None:
            continue
        if used < amount:
            bucket.give_back(amount - used, mark, now)
        elif used > amount:
            bucket.charge(used - amount, mark, now)
    counters.in_flight -= 1
    ledger.mark_changed(counters)


def _count_key(ledger: Ledger, key: str, number: int) -> None:
    key_state = ledger.find_key_state(key)
    if key_state is not None:
        key_state.in_flight += number
    else:
        add(ledger.inherited, key, number)


def _counters(ledger: Ledger, name: str) -> LimitCounters:
    scope, _, owner = name.partition("/")
    return ledger.counters_of(scope, owner)
