-- What the operator decided of upstreams while the server ran. Moments are seconds since 1970, UTC.

-- Upstreams that get no requests until they are resumed. They are named as in relay.toml; a name
-- that is not there any more stays, for it may come back.
CREATE TABLE pause (
    upstream TEXT NOT NULL PRIMARY KEY,
    since    REAL NOT NULL
) STRICT;
