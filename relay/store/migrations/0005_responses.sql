-- For the Responses API. Times are seconds since 1970, UTC.

-- Values that the relay creates once and never changes.
CREATE TABLE value (
    name   TEXT NOT NULL PRIMARY KEY,
    octets BLOB NOT NULL
) STRICT;

-- Stored responses, each with its request. `sealed` is encrypted with `responses.key` of relay.toml,
-- so this file alone does not reveal it.
CREATE TABLE response (
    id       TEXT NOT NULL PRIMARY KEY,
    owner    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    previous TEXT,           -- the response that the request continues; it may be gone
    created  REAL NOT NULL,
    expires  REAL NOT NULL,
    sealed   BLOB NOT NULL   -- a nonce of 12 octets, then AES-256-GCM of answer, input and output
) STRICT;

CREATE INDEX response_by_expiry ON response (expires);
