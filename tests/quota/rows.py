"""Reads a ledger's state without marking it as written, as `Ledger.changes` does."""

from relay.quota.ledger import Ledger
from relay.quota.state import Balance, LimitCounters, Row


def all_rows(ledger: Ledger) -> list[Row]:
    """The rows of everything, whether it changed or not."""
    states: list[LimitCounters | Balance] = [*ledger._counters.values(), *ledger._balances.values()]
    return [row for state in states for row in state.rows()]


def balance_of(ledger: Ledger, account: str) -> int:
    """What an account has left, requests in flight not counted; 0 for an unknown one."""
    balance = ledger._balances.get(account)
    return 0 if balance is None else balance.amount
