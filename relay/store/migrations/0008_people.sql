-- Changes by people, keys with limits of their own, codes, periods of plans, announcements,
-- provisioning. Times are seconds since 1970, UTC; money is whole micro-dollars.

-- Every change by an operator or a person, written in the transaction of the change. Never a secret.
CREATE TABLE audit (
    id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    time    REAL    NOT NULL,
    actor   TEXT    NOT NULL,  -- `usr_…`, `adm_…`, `cli:NAME`, `relay`
    address TEXT    NOT NULL,  -- where from; empty: from within
    action  TEXT    NOT NULL,  -- such as user.suspend
    subject TEXT    NOT NULL,  -- the id of what was changed
    before  TEXT,              -- JSON; null: it was not there
    after   TEXT               -- JSON; null: it is gone
) STRICT;

CREATE INDEX audit_by_subject ON audit (subject, id);
CREATE INDEX audit_by_actor ON audit (actor, id);

CREATE TRIGGER audit_keeps_its_rows BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit log is never changed');
END;

CREATE TRIGGER audit_loses_no_row BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit log is never shortened');
END;

-- REPLACE would delete a row without the trigger above.
CREATE TRIGGER audit_replaces_nothing BEFORE INSERT ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit log is never changed')
    WHERE EXISTS (SELECT 1 FROM audit WHERE id = NEW.id);
END;

-- A suspension's reason, which its person reads. The plan of a period: until when, and what follows.
ALTER TABLE users ADD COLUMN suspended_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN plan_until REAL;
ALTER TABLE users ADD COLUMN plan_then TEXT;

-- The periods of plans, for their history.
CREATE TABLE period (
    id        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    user_id   TEXT    NOT NULL,
    plan      TEXT    NOT NULL,
    kind      TEXT    NOT NULL CHECK (kind IN ('start', 'extend')),
    starts_at REAL    NOT NULL,
    ends_at   REAL    NOT NULL,
    plan_then TEXT    NOT NULL,  -- the plan that follows
    source    TEXT    NOT NULL   -- who or which code
) STRICT;

CREATE INDEX period_by_user ON period (user_id, id);

-- What an owner sets for one key. Null or 0: nothing.
ALTER TABLE keys ADD COLUMN disabled_at REAL;
ALTER TABLE keys ADD COLUMN models TEXT;           -- JSON: names, `*` at the end matches the rest
ALTER TABLE keys ADD COLUMN addresses TEXT;        -- JSON: addresses and networks
ALTER TABLE keys ADD COLUMN limits TEXT;           -- JSON: see relay.store.keys.OwnLimit
ALTER TABLE keys ADD COLUMN max_concurrency INTEGER NOT NULL DEFAULT 0;
-- After a rotation: the key before, and until when it works beside the present one.
ALTER TABLE keys ADD COLUMN old_digest BLOB;
ALTER TABLE keys ADD COLUMN old_until REAL;
CREATE UNIQUE INDEX keys_by_old_digest ON keys (old_digest) WHERE old_digest IS NOT NULL;

-- What moved the balance, where its kind does not say: redemption, refund, payment. `about`: of
-- which code or request; the same one moves it once.
ALTER TABLE statement ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE statement ADD COLUMN about TEXT;
CREATE UNIQUE INDEX statement_by_about ON statement (reason, about) WHERE about IS NOT NULL;

CREATE TRIGGER statement_moves_once BEFORE INSERT ON statement WHEN NEW.about IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'a statement is never changed')
    WHERE EXISTS (SELECT 1 FROM statement WHERE reason = NEW.reason AND about = NEW.about);
END;

-- Changes of windows, for the running server: each is applied once, in the transaction that writes
-- the limits' new state.
CREATE TABLE adjustment (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    user_id    TEXT    NOT NULL,
    kind       TEXT    NOT NULL CHECK (kind IN ('reset', 'bonus', 'renew')),
    counts     TEXT    NOT NULL,  -- requests or tokens; empty for renew: all
    per        INTEGER NOT NULL,  -- seconds
    amount     INTEGER NOT NULL,  -- of a bonus
    windows    INTEGER NOT NULL,
    made_at    REAL    NOT NULL,
    applied_at REAL
) STRICT;

CREATE INDEX adjustment_pending ON adjustment (id) WHERE applied_at IS NULL;

CREATE TRIGGER adjustment_is_noticed AFTER INSERT ON adjustment BEGIN
    UPDATE revision SET number = number + 1;
END;

-- Codes that people redeem, and invitations. Only the SHA-256 of a code is kept.
CREATE TABLE code (
    id           TEXT    NOT NULL PRIMARY KEY,
    batch        TEXT    NOT NULL,
    digest       BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    hint         TEXT    NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('credit', 'plan', 'invite')),
    amount_micro INTEGER NOT NULL DEFAULT 0,
    plan         TEXT,
    seconds      INTEGER NOT NULL DEFAULT 0,
    plan_then    TEXT,
    uses         INTEGER NOT NULL CHECK (uses > 0),
    used         INTEGER NOT NULL DEFAULT 0 CHECK (used <= uses),
    note         TEXT    NOT NULL DEFAULT '',
    created_at   REAL    NOT NULL,
    expires_at   REAL,
    revoked_at   REAL
) STRICT;

CREATE INDEX code_by_batch ON code (batch);

CREATE TABLE redemption (
    code_id TEXT NOT NULL REFERENCES code (id),
    user_id TEXT NOT NULL,
    time    REAL NOT NULL,
    PRIMARY KEY (code_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX redemption_by_user ON redemption (user_id);

CREATE TABLE announcement (
    id         TEXT NOT NULL PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('notice', 'maintenance')),
    text       TEXT NOT NULL,
    text_zh    TEXT NOT NULL DEFAULT '',
    starts_at  REAL NOT NULL,
    ends_at    REAL,
    created_at REAL NOT NULL
) STRICT;

-- What each upstream cost and did, by day (UTC) of admission. Sums stay when requests are pruned.
CREATE TABLE upstream_day (
    day         INTEGER NOT NULL,  -- its first second
    upstream    TEXT    NOT NULL,
    requests    INTEGER NOT NULL,
    tokens      INTEGER NOT NULL,
    cost_micro  INTEGER NOT NULL,
    PRIMARY KEY (upstream, day)
) STRICT, WITHOUT ROWID;

INSERT INTO upstream_day
SELECT CAST(time AS INTEGER) / 86400 * 86400, upstream, count(*),
    sum(coalesce(input, 0) + coalesce(output, 0) + coalesce(cache_read, 0)
        + coalesce(cache_write, 0)), sum(cost_micro)
FROM usage WHERE upstream IS NOT NULL AND number <= (SELECT upto FROM summed) GROUP BY 2, 1;

-- Keys of the provisioning API. They are no callers' keys.
CREATE TABLE admin_key (
    id         TEXT NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL,
    digest     BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    hint       TEXT NOT NULL,
    scopes     TEXT NOT NULL,  -- JSON
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL
) STRICT;

-- Answers to requests with an Idempotency-Key, for a day.
CREATE TABLE idempotency (
    admin_key TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    digest    BLOB    NOT NULL,  -- of method, path and body
    time      REAL    NOT NULL,
    status    INTEGER NOT NULL,
    body      BLOB    NOT NULL,
    PRIMARY KEY (admin_key, name)
) STRICT, WITHOUT ROWID;

-- The most that a person may spend in a period.
CREATE TABLE spend_limit (
    id           TEXT    NOT NULL PRIMARY KEY,
    user_id      TEXT    NOT NULL,
    period       TEXT    NOT NULL CHECK (period IN ('daily', 'weekly', 'monthly')),
    amount_micro INTEGER,          -- null: no limit
    created_at   REAL    NOT NULL,
    updated_at   REAL    NOT NULL,
    UNIQUE (user_id, period)
) STRICT;

CREATE TRIGGER spend_limit_insert_is_noticed AFTER INSERT ON spend_limit BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER spend_limit_update_is_noticed AFTER UPDATE ON spend_limit BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER spend_limit_delete_is_noticed AFTER DELETE ON spend_limit BEGIN
    UPDATE revision SET number = number + 1;
END;

-- What happened, for the receivers of signed webhooks; written with what it reports.
CREATE TABLE event (
    id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    time    REAL    NOT NULL,
    kind    TEXT    NOT NULL,  -- user, payment or window
    subject TEXT    NOT NULL,
    text    TEXT    NOT NULL,
    once    TEXT    UNIQUE,    -- the same event is written once
    sent_at REAL
) STRICT;

CREATE INDEX event_pending ON event (id) WHERE sent_at IS NULL;
