"""Nodes share accounts, keys, balances, usage, kept responses and the audit log.

Each node has all rows in its own SQLite file, so that it reads and changes them as if it were
alone, also while PostgreSQL is away. PostgreSQL has the last state of each row, in one order, and
carries it from node to node (`relay.store.replication` has the side of SQLite).

calls        the functions in PostgreSQL
use          the limits that a database has used before it joins
replication  the task that sends and receives
"""
