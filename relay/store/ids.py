"""Ids that count up: those of the statement, the audit log and the periods of plans.

Decides the next one, as SQL. A database by itself counts by one. Of nodes that share their rows,
each takes ids that are its own number modulo `STEP`, above all ids that it has seen: no two nodes
give the same one, and later entries have greater ids on every node. Must not know the tables.
"""

from typing import Final

STEP: Final = 1024  # one more than there may be nodes


def next_id(table: str) -> str:
    """SQL for the next id of a table with AUTOINCREMENT; null where SQLite is to choose it."""
    return f"""(SELECT (coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), 0)
        / {STEP} + 1) * {STEP} + number FROM replica)"""  # noqa: S608
