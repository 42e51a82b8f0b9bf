"""Decides who may use how much: limits, prepaid balances, and how both are reported.

Pure: time comes in as an argument, state goes out as plain tuples. `ledger` is the entry
point; `plans` and `prices` compile the settings once, `rate_limit_fields` writes the header
fields of every response, `exceeded` the error where a limit is reached.
"""
