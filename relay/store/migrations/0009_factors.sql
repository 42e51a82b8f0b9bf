-- More ways to log in than a password. Times are seconds since 1970, UTC.

-- An authenticator app. Its secret is sealed with a key derived from the relay's own (AES-GCM).
CREATE TABLE totp (
    user_id      TEXT NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    sealed       BLOB NOT NULL,
    confirmed_at REAL,                        -- null: a first code is awaited
    last_step    INTEGER NOT NULL DEFAULT 0   -- of the last code that was accepted
) STRICT, WITHOUT ROWID;

-- A code that stands in for the app, once: its row goes with its use. Kept as a SHA-256.
CREATE TABLE recovery_code (
    digest  BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX recovery_code_by_user ON recovery_code (user_id);

-- A passkey: its id and public key, which are no secrets.
CREATE TABLE passkey (
    id         BLOB NOT NULL PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    public_key BLOB NOT NULL,
    sign_count INTEGER NOT NULL,
    name       TEXT NOT NULL,
    created_at REAL NOT NULL,
    used_at    REAL
) STRICT, WITHOUT ROWID;

CREATE INDEX passkey_by_user ON passkey (user_id);

-- An account at another provider that opens this one.
CREATE TABLE identity (
    issuer    TEXT NOT NULL,  -- URL of the provider
    subject   TEXT NOT NULL,  -- its name for the person, which never changes
    user_id   TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    email     TEXT NOT NULL,  -- as verified there when it was linked
    linked_at REAL NOT NULL,
    used_at   REAL,
    PRIMARY KEY (issuer, subject)
) STRICT, WITHOUT ROWID;

CREATE INDEX identity_by_user ON identity (user_id);
