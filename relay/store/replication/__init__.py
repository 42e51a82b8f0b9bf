"""Rows that several nodes share: each node has all of them in its own file.

tables    which tables are shared, and why the others are not
shape     columns, keys and references of these, as the database has them
capture   triggers that note each change in the outbox
outbox    changes that the other nodes have yet to get
images    rows as JSON
applying  rows of other nodes brought into the tables
joining   a database becomes a node's: its rows are checked, numbered anew and noted
use       the limits that it has used until then, which go before its rows

Must not know how rows travel (`relay.cluster.replication`).
"""
