"""Pools of upstreams without listeners, on nodes in this process."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

from relay.config import PoolSettings
from relay.net.deadlines import Deadlines
from relay.pool.health import Health
from relay.pool.leases import Upstreams
from relay.pool.node_outages import NodeOutages
from relay.pool.outages import Level
from relay.pool.upstream import Upstream
from relay.pool.vendor_errors import Scope, Verdict
from relay.quota.ledger import Ledger
from tests.cluster.nodes import running_node
from tests.fakes.pool import MODEL, made


class NodePool:
    """The pool of one node: upstreams a to d."""

    def __init__(self, options: dict[str, dict[str, Any]] | None = None) -> None:
        upstreams, self.route = made(options or {"a": {}, "b": {}, "c": {}, "d": {}})
        timers = Deadlines(asyncio.get_running_loop())
        self.pool = Upstreams(upstreams, PoolSettings(), Ledger(), timers)

    def __getitem__(self, name: str) -> Upstream:
        found = self.pool.named(name)
        assert found is not None
        return found

    def health(self, name: str) -> Health:
        return self[name].health

    def fail(
        self, name: str, *, stated: bool = True, scope: Scope = Scope.ACCOUNT, caller: str = "",
        sure: bool = True, seconds: float = 60.0,
    ) -> None:  # fmt: skip
        """A request of this node has failed at an upstream."""
        now = self.pool.now()
        verdict = Verdict(scope, now + seconds, stated, "429: limit reached", sure)
        self.health(name).failed(verdict, MODEL, now, caller)

    def level(self, name: str, model: str = MODEL, caller: str = "ann") -> Level:
        """How far an upstream can be used."""
        return self.health(name).level(model, self.pool.now(), False, caller)

    def left(self, name: str) -> float:
        """Seconds until an upstream can be used again."""
        now = self.pool.now()
        return self.health(name).ready_at(MODEL, now) - now


@contextlib.asynccontextmanager
async def running_pool(
    url: str, node: str = "", pool: NodePool | None = None
) -> AsyncIterator[NodePool]:
    """A node with a pool."""
    async with running_node(url, node or secrets.token_hex(4)) as running:
        pool = pool or NodePool()
        running.share_upstreams(NodeOutages(pool.pool, running.state_sync.wake))
        yield pool
