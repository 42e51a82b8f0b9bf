-- Users and their API keys. Times are seconds since 1970, UTC.

CREATE TABLE users (
    id            TEXT    NOT NULL PRIMARY KEY,
    email         TEXT    NOT NULL UNIQUE COLLATE NOCASE,
    plan          TEXT    NOT NULL,  -- the id of a [[plan]] in relay.toml
    is_admin      INTEGER NOT NULL DEFAULT 0 CHECK (is_admin IN (0, 1)),
    suspended_at  REAL,
    password_hash TEXT,
    created_at    REAL    NOT NULL
) STRICT;

CREATE TABLE keys (
    id         TEXT NOT NULL PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id),
    name       TEXT NOT NULL,
    digest     BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),  -- SHA-256 of the key
    hint       TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL
) STRICT;

CREATE INDEX keys_by_user ON keys (user_id);
