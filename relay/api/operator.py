"""Builds the handler of the admin listener, with the token that it asks for."""

from relay.api.admin import Admin, AdminAccess
from relay.api.admin_token import write_token
from relay.api.explain import Explainer
from relay.api.handler import Handler
from relay.api.monitor import Monitor
from relay.api.reading import Parts
from relay.config import Settings
from relay.pool.affinity import Bindings
from relay.store.database import Database


def new_operator(
    settings: Settings, bindings: Bindings, database: Database, parts: Parts, handler: Handler
) -> Admin:
    """Raises StoreError: the token of the admin listener cannot be written."""
    address = settings.admin_address
    token = write_token(settings.database.path) if address and address.path is None else None
    monitor = Monitor(parts, handler.watch, settings.database.path)
    return Admin(
        monitor,
        bindings,
        database,
        settings.database.path,
        AdminAccess(settings.server.admin_listen.host, token),
        Explainer(database, parts.ledger, monitor, lambda: handler.catalog),
    )
