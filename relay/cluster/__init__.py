"""Several machines with one PostgreSQL: they share limits, exactly, and hear of changes.

A node holds leases, parts of the windows of limits, and admits from them without a wait. The
database owns the windows. `relay.quota.share` has both sides as pure code; the functions in
`migrations` are its owner's side in SQL, and the modules here carry claims and grants.

Imported only where a ledger is shared: psycopg is in the extra `relay[cluster]`.
"""
