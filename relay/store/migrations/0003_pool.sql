-- Decisions of the operator about upstreams. Times are seconds since 1970, UTC.

-- Upstreams that get no requests until they are resumed, by their names in relay.toml. A name that
-- is no longer there stays, since it may come back.
CREATE TABLE pause (
    upstream TEXT NOT NULL PRIMARY KEY,
    since    REAL NOT NULL
) STRICT;
