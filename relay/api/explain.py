"""Finds all that is known of one request: in flight, among the latest failures, in the database.

Decides where a request is looked for, and in which order. Nothing is recorded for this: it reads
what the log, the pages and the journal have anyway. The access log is not read here, since a
server must not search large files; `relay explain` does. Must not know how facts are worded.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from relay.api.monitor import Monitor
from relay.api.request_facts import (
    FAILURES,
    IN_FLIGHT,
    Facts,
    LimitNow,
    Match,
    RouteEntry,
    Said,
    add_admission,
    add_record,
    add_row,
    tried_last,
)
from relay.api.request_ids import is_complete, parse_request_id
from relay.clock import rfc3339
from relay.errors import CONFLICT, INVALID_REQUEST, NOT_FOUND, RelayError
from relay.gateway.access_record import access_record
from relay.gateway.admission import MeteredAdmission
from relay.gateway.catalog import Catalog
from relay.gateway.context import RequestContext
from relay.gateway.watch import Failure
from relay.quota.ledger import Ledger
from relay.quota.windows import windows
from relay.store.database import Database
from relay.store.request_search import billing, find_admitted, find_requests
from relay.store.users import find_user, user_by_id

_MAX_NAMED: Final = 5


class AmbiguousIdError(Exception):
    """Several requests have ids that begin like this; the message names some."""

    def __init__(self, prefix: str, found: Iterable[str]) -> None:
        ids = sorted(found)
        more = f" and {len(ids) - _MAX_NAMED} more" if len(ids) > _MAX_NAMED else ""
        super().__init__(
            f"Several requests begin with {prefix}: {', '.join(ids[:_MAX_NAMED])}{more}. Give more "
            "of the id."
        )


async def from_database(
    database: Database, prefix: str, facts: Facts | None = None
) -> Facts | None:
    """What the database has of a request, added to `facts` if it is known already; None: nothing.

    Raises:
        AmbiguousIdError: several requests fit.
        StoreError: the database cannot be read.
    """
    rows = await find_requests(database, prefix)
    admitted = [] if rows or facts else await find_admitted(database, prefix)
    ids = {row.id for row in rows} | {row.id for row in admitted}
    if facts is not None:
        ids.add(facts.id)
    if len(ids) > 1:
        raise AmbiguousIdError(prefix, ids)
    if not ids:
        return None
    facts = facts or Facts(ids.pop(), "ended")
    if rows:
        add_row(facts, rows[0], await billing(database, facts.id))
    elif admitted:
        add_admission(facts, admitted[0])
    await _add_person(database, facts)
    return facts


async def _add_person(database: Database, facts: Facts) -> None:
    """Add the account and its present plan. A record names it by address, a row by its id."""
    if facts.user_id:
        person = await user_by_id(database, facts.user_id)
    else:
        person = await find_user(database, facts.user) if facts.user else None
    if person is not None:
        facts.user_id, facts.user = person.id, facts.user or person.email
        facts.plan_now = person.plan_at(time.time())


@dataclass(frozen=True, slots=True)
class Explainer:
    """Finds requests in a running relay. `catalog` returns the one of now."""

    database: Database
    ledger: Ledger
    monitor: Monitor
    catalog: Callable[[], Catalog]

    async def explain(self, text: str) -> Facts:
        """What is known of the request that a text names.

        Raises:
            RelayError: 400, the text is no id; 404, no request has it; 409, several have.
        """
        try:
            prefix = parse_request_id(text)
        except ValueError as error:
            raise RelayError(INVALID_REQUEST, f"{error}.") from None
        try:
            facts = await from_database(self.database, prefix, await self._from_memory(prefix))
        except AmbiguousIdError as error:
            raise RelayError(CONFLICT, str(error)) from None
        if facts is None:
            raise RelayError(
                NOT_FOUND,
                f"No request {'has' if is_complete(prefix) else 'begins with'} the id {prefix}: it "
                "is not in flight, not in the database, and not among the latest failures. One "
                "that was refused before it was admitted is in the access log alone: `relay "
                "explain` reads it.",
            )
        await self._add_present(facts)
        return facts

    async def _from_memory(self, prefix: str) -> Facts | None:
        others = self.monitor.others
        found = [self.in_memory(prefix)]
        if others is not None:
            found += await others.matches(prefix)
        ids = {id for match in found for id in match.ids}
        if len(ids) > 1:
            raise AmbiguousIdError(prefix, ids)
        return next((match.facts for match in found if match.facts is not None), None)

    def in_memory(self, prefix: str) -> Match:
        """What this process has in memory of the requests whose ids begin like this."""
        watch = self.monitor.watch
        running = [ctx for ctx in watch.running if ctx.id.startswith(prefix)]
        failures = [one for one in watch.failures if one.record.id.startswith(prefix)]
        ids = {ctx.id for ctx in running} | {one.record.id for one in failures}
        facts = None
        if len(ids) == 1:
            facts = self._running(running[0]) if running else self._failure(failures[-1])
        return Match(list(ids), facts)

    def _running(self, ctx: RequestContext) -> Facts:
        facts = Facts(ctx.id, "in flight")
        record = access_record(ctx, "", max(0, int((time.time() - ctx.started_at) * 1e6)))
        add_record(facts, msgspec.structs.asdict(record), IN_FLIGHT, self._names())
        facts.rule = ""  # not settled yet
        facts.words = ctx.upstream_words.decode("utf-8", "replace")
        facts.user_id = ctx.account
        facts.dialect = "" if ctx.inbound is None else ctx.inbound.dialect
        facts.stage = _stage(ctx, facts.tried)
        if ctx.key_state is not None:
            facts.plan = ctx.key_state.plan.id
        if isinstance(ctx.admission, MeteredAdmission):
            facts.reserved = ctx.admission.tokens
            facts.held_micro = ctx.admission.reservation.cost
        return facts

    def _failure(self, failure: Failure) -> Facts:
        facts = Facts(failure.record.id, "ended")
        add_record(facts, msgspec.structs.asdict(failure.record), FAILURES, self._names())
        facts.words = failure.words
        return facts

    def _names(self) -> list[str]:
        return [upstream.name for upstream in self.monitor.upstreams]

    async def _add_present(self, facts: Facts) -> None:
        """Add the model's route and the account's limits as they are now."""
        catalog = self.catalog()
        if facts.model:
            try:
                route = catalog.route(facts.model)
            except RelayError:  # the model is gone from relay.toml, or never was there
                pass
            else:
                facts.route = [
                    RouteEntry(one.upstream.name, one.upstream.priority, one.name)
                    for one in route.targets
                ]
        if not facts.plan_now:
            return
        try:
            plan = catalog.plan(facts.plan_now)
        except RelayError:
            return
        owner = facts.user_id if plan.by_account else facts.key
        await self.ledger.refresh([(plan, owner)], time.time())
        views = windows(self.ledger, owner, plan, time.time())
        facts.limits_now = [
            LimitNow(limit.name, view.remaining, "" if view.reset is None else rfc3339(view.reset))
            for limit, view in zip(plan.limits, views, strict=True)
        ]


def _stage(ctx: RequestContext, tried: list[Said]) -> str:
    """How far a request in flight has come. The head of its answer says nothing: keep-alives may
    have sent it before there was an upstream."""
    if ctx.inbound is None:
        return "reading"
    if ctx.first_us or (ctx.upstream_us and not tried):
        return "answering"
    return "asking" if ctx.upstream and ctx.upstream != tried_last(tried) else "waiting"
