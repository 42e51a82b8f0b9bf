"""`relay ledger`: the relays that share a ledger, and those that will not come back.

Decides the output. Must not know how nodes share anything.
"""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from relay import config
from relay.cli.output import counted, print_json, print_records, timestamp
from relay.cli.program import Failure, Misuse, config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.cluster.nodes import NodeState

T = TypeVar("T")


@click.group()
@config_option
def ledger() -> None:
    """The relays that share the ledger of relay.toml."""


@ledger.command("nodes")
@config_option
@json_option
def ledger_nodes(as_json: bool) -> None:
    """Show all relays that have ever shared it."""
    settings = load_settings()
    url = shared_url(settings)
    from relay.cluster.joining import node_name
    from relay.cluster.nodes import list_nodes

    own = node_name(settings)
    rows = [
        {
            "node": one.name,
            "state": _state(one),
            "this_relay": one.name == own,
            "last_seen": timestamp(one.seen / 1000),
            "rows_behind": one.behind,
        }
        for one in _run(list_nodes(url))
    ]
    print_records(rows, as_json, "No relay has joined yet.")


def _state(one: "NodeState") -> str:
    if one.is_import:
        return "import"
    if one.is_gone:
        return "gone"
    return "stopped" if one.has_left else "alive" if one.is_alive else "silent"


@ledger.command("forget")
@click.argument("node")
@config_option
@json_option
def ledger_forget(node: str, as_json: bool) -> None:
    """Declare NODE gone for good, so that others can do what it had begun.

    It cannot come back with its database: changes that it had yet to share are lost.
    """
    url = shared_url(load_settings())
    from relay.cluster.nodes import forget_node, list_nodes

    freed = _run(forget_node(url, node))
    if freed is None:
        states = {one.name: _state(one) for one in _run(list_nodes(url))}
        raise Failure(f"relay: {_obstacle(node, states.get(node))}")
    if as_json:
        print_json({"node": node, "freed": freed})
    else:
        acts = counted(freed, "act")
        click.echo(f"{node} is gone; {acts} that it had begun can be done by others.")


def _obstacle(node: str, state: str | None) -> str:
    """Why a node cannot be forgotten."""
    if state is None:
        return f"there is no node {node}: see `relay ledger nodes`"
    if state == "import":
        return f"{node} is an import, which has nothing left to do"
    if state == "gone":
        return f"node {node} is gone already"
    return f"node {node} is alive: stop it first, and wait for 15 s if it was killed"


def shared_url(settings: config.Settings) -> str:
    """The ledger's URL.

    Raises:
        Misuse: none is set, it cannot be used, or the client of PostgreSQL is missing.
    """
    if not settings.ledger.url:
        raise Misuse("relay: relay.toml has no [ledger] url")
    try:
        from relay.cluster.url import read_url

        url = settings.ledger.resolved_url()
        read_url(url)
    except ValueError as error:
        raise Misuse(f"relay: ledger.url: {error}") from None
    except ImportError as error:
        raise Misuse(f"relay: ledger.url {config.missing_client()} ({error})") from None
    return url


def _run(work: Coroutine[Any, Any, T]) -> T:
    from relay.cluster.link import EngineAwayError, EngineRefusalError
    from relay.cluster.schema import SchemaError

    try:
        return asyncio.run(work)
    except EngineAwayError as error:
        raise Failure(f"relay: PostgreSQL is away: {error}") from None
    except (EngineRefusalError, SchemaError) as error:
        raise Failure(f"relay: {error}") from None
