"""Leads requests to the provisioning API, which is loaded by the first of them.

A relay that is never asked does not import it. Decides the paths. Must not know an endpoint.
"""

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol

from relay.gateway.context import RequestContext
from relay.net.off_loop import Once

if TYPE_CHECKING:
    from relay.provisioning.call import RunningRelay
    from relay.provisioning.endpoint import Provisioning

_PREFIXES: Final = (b"/api/v1", b"/v1/organizations/")
_Serve = Callable[[RequestContext], Awaitable[None]]


class Endpoints(Protocol):
    """Where endpoints are found by path."""

    def mount(self, prefix: bytes, endpoint: _Serve) -> None: ...
    def get(self, path: bytes, endpoint: _Serve) -> None: ...


def serve_at(endpoints: Endpoints, relay: "RunningRelay") -> None:
    """Serve the paths of the API."""

    def load() -> "Provisioning":
        api: Provisioning = import_module("relay.provisioning.endpoint").Provisioning(relay)
        return api

    loaded = Once("provisioning", load)

    async def serve(ctx: RequestContext) -> None:
        await (await loaded.get()).serve(ctx)

    async def describe(ctx: RequestContext) -> None:
        await (await loaded.get()).describe(ctx)

    for prefix in _PREFIXES:
        endpoints.mount(prefix, serve)
    endpoints.get(b"/openapi.json", describe)
