"""What outlives the process, in SQLite: people and their keys.

`shelf` keeps responses, in memory or encrypted, and `sealing` the key for what callers carry.
`database` opens the file and runs transactions on its one thread, `migrations/`
bring it up to date, `keys` has the typed questions, `watch` tells a running
server what another process changed. Nothing above this package sees SQL.
"""
