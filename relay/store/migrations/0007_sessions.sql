-- For the pages: log-ins, one-time links, and a person's own requests. Times are seconds since 1970,
-- UTC.

-- A browser that is logged in. Its cookie has 256 random bits, of which only the SHA-256 is here.
CREATE TABLE session (
    digest     BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at REAL NOT NULL,
    seen_at    REAL NOT NULL,  -- to the minute
    address    TEXT NOT NULL,
    agent      TEXT NOT NULL   -- the browser's name for itself
) STRICT, WITHOUT ROWID;

CREATE INDEX session_by_user ON session (user_id);

-- A link that can be used once: its row goes with its use. Its token is kept as the SHA-256.
CREATE TABLE link (
    digest        BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    purpose       TEXT NOT NULL CHECK (purpose IN ('admin', 'confirm', 'invite', 'reset')),
    user_id       TEXT REFERENCES users (id) ON DELETE CASCADE,  -- reset
    email         TEXT,  -- confirm: the address that is to be an account's
    password_hash TEXT,  -- confirm
    plan          TEXT,  -- invite; null: as for everybody
    expires_at    REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Where an account's requests are in `usage`. Brought up to date while somebody looks at pages
-- (`relay.store.request_log`): an index on `usage` itself would cost every request.
CREATE TABLE usage_of (
    user_id TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    PRIMARY KEY (user_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_indexed (upto INTEGER NOT NULL) STRICT;
INSERT INTO usage_indexed VALUES (0);

CREATE TRIGGER usage_of_follows AFTER DELETE ON usage BEGIN
    DELETE FROM usage_of WHERE user_id = OLD.user_id AND number = OLD.number;
END;
