-- What the Responses API has a server keep. Moments are seconds since 1970, UTC.

-- Values of the relay's own that are made once and must stay the same.
CREATE TABLE value (
    name   TEXT NOT NULL PRIMARY KEY,
    octets BLOB NOT NULL
) STRICT;

-- Responses that callers had kept, each with the request that it answers. `sealed` can be read by
-- whoever has `responses.key` of relay.toml, and by nobody who has but this file.
CREATE TABLE response (
    id       TEXT NOT NULL PRIMARY KEY,
    owner    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    previous TEXT,           -- the response that the request goes on from; it may be gone
    created  REAL NOT NULL,
    expires  REAL NOT NULL,
    sealed   BLOB NOT NULL   -- a nonce of 12 octets, then AES-256-GCM of answer, input and output
) STRICT;

CREATE INDEX response_by_expiry ON response (expires);
