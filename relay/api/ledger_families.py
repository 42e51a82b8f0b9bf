"""The figures of a shared ledger for Prometheus, as this node has them.

Decides the names of the metrics. Must not know how nodes share limits.
"""

from typing import TYPE_CHECKING

from relay.telemetry.exposition import Family, counter, gauge

if TYPE_CHECKING:
    from relay.cluster.node import NodeFigures  # which needs psycopg
    from relay.cluster.replication.replication import ReplicationFigures


def of_ledger(node: "NodeFigures") -> list[Family]:
    """The ledger's figures as they are now."""
    counted, engine = node.counters, node.engine
    families = [
        gauge("relay_ledger_up", "1 while the shared ledger answers.", float(not node.away_for)),
        gauge("relay_ledger_away_seconds", "For how long it has not.", node.away_for),
        gauge("relay_ledger_lag_seconds", "Time that its last answer took.", counted["lag"]),
        gauge("relay_ledger_nodes", "Relays that share it.", node.nodes),
        gauge("relay_ledger_leases", "Leases of this node with something unused.", node.leases),
        counter("relay_ledger_calls", "Round trips with claims.", counted["calls"]),
        counter("relay_ledger_failed_calls", "Of these, failed.", counted["failed_calls"]),
        counter("relay_ledger_claims", "Claims in them.", counted["claims"]),
        counter("relay_ledger_waits", "Requests that waited for a grant.", counted["waited"]),
        counter("relay_ledger_refused", "Requests refused by shared limits.", counted["refused"]),
        counter(
            "relay_ledger_refused_away",
            "Requests refused while the ledger was away.",
            counted["refused_away"],
        ),
        counter(
            "relay_ledger_admitted_locally",
            "Requests admitted by the node's part while the ledger was away.",
            counted["admitted_locally"],
        ),
        counter("relay_ledger_recalls", "Leases that other nodes asked for.", counted["recalls"]),
        counter("relay_ledger_outages", "Times that the ledger was lost.", counted["outages"]),
    ]
    if engine is not None:
        families.append(
            gauge(
                "relay_ledger_reclaimed_leases",
                "Leases of all nodes that count as used, as their node was silent.",
                engine.lost,
            )
        )
    return families


def of_replication(figures: "ReplicationFigures") -> list[Family]:
    """The figures of the rows that nodes share, as they are now."""
    return [
        counter("relay_shared_rows_sent", "Rows sent to other relays.", figures.sent),
        counter("relay_shared_rows_received", "Rows of other relays.", figures.received),
        gauge("relay_shared_rows_unsent", "Changes that wait to be sent.", figures.unsent),
        gauge(
            "relay_shared_rows_waiting_seconds",
            "Time since no change waited to be sent.",
            figures.waiting_for,
        ),
        gauge("relay_shared_rows_behind", "Rows of others that are not here yet.", figures.behind),
        gauge("relay_shared_rows_held", "Rows of others that contradict rows here.", figures.held),
    ]
