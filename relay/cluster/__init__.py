"""Several machines with one PostgreSQL: they share limits, exactly, and hear of changes.

A node holds leases, parts of the windows of limits, and admits from them without a wait. The
database owns the windows. `relay.quota.share` has both sides as pure code; the functions in
`migrations` are its owner's side in SQL, and the modules here carry claims and grants.

    schema      migrations, applied in order and checked
    link        one connection, opened again whenever it was lost
    probe       why PostgreSQL cannot be used, in words for the operator
    calls       the functions in PostgreSQL, as values in and values out
    courier     carries claims and grants, those of many requests in one round trip
    listener    recalls and changes, and the poll of each second
    windows     a node's windows, and what one request holds in them
    waiting     requests that wait for a grant
    limits      admission: from leases in one step, else after a claim
    reports     use that no request reports
    outage      the node's part of limits while the database is away
    state_sync  carries outages of upstreams and moves of conversations between nodes
    states      these, by value
    upstream_states, session_moves  these, in PostgreSQL
    node        connections, limits and their upkeep
    shares      the limits of a key as nodes share them; the use of leases in the journal
    reservations  what a request holds in leases, and the error where they have no room
    ledger      the relay's ledger, which admits by these limits
    joining     how a relay becomes a node

Imported only where a ledger is shared: psycopg is in the extra `relay[cluster]`.
"""
