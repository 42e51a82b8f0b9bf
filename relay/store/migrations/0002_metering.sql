-- Usage, limits and money. Times are seconds since 1970, UTC; money is whole micro-dollars.

-- One row for each request, written once, soon after its end. No foreign key to users: history
-- outlives accounts. No index but the row's number: rows are in the order of their ends, so the
-- latest are at the end, and an index costs a quarter of the row.
CREATE TABLE usage (
    number      INTEGER NOT NULL PRIMARY KEY,
    id          TEXT    NOT NULL,              -- its answer's request-id
    time        REAL    NOT NULL,              -- of its admission
    key_id      TEXT    NOT NULL,
    user_id     TEXT    NOT NULL,
    model       TEXT    NOT NULL,              -- as requested
    dialect     TEXT    NOT NULL,
    reserved    INTEGER NOT NULL,              -- tokens
    status      INTEGER,
    served      TEXT,                          -- the answer's model
    upstream    TEXT,
    input       INTEGER,                       -- tokens; null: not reported
    output      INTEGER,
    cache_read  INTEGER,
    cache_write INTEGER,
    cost_micro  INTEGER NOT NULL,
    ttfb_us     INTEGER,
    duration_us INTEGER,
    outcome     TEXT    NOT NULL,
    rule        TEXT    NOT NULL,              -- see relay.store.batch.Rule
    -- Reported counts must leave room for sums.
    CHECK (abs(input) <= 1000000000000 AND abs(output) <= 1000000000000),
    CHECK (abs(cache_read) <= 1000000000000 AND abs(cache_write) <= 1000000000000),
    CHECK (abs(cost_micro) <= 1000000000000)
) STRICT;

-- Sums by hour of admission. They stay when requests are pruned.
CREATE TABLE usage_hour (
    hour        INTEGER NOT NULL,            -- its first second
    user_id     TEXT    NOT NULL,
    key_id      TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    requests    INTEGER NOT NULL,
    refunded    INTEGER NOT NULL,            -- of these, those without cost
    input       INTEGER NOT NULL,
    output      INTEGER NOT NULL,
    cache_read  INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    estimated   INTEGER NOT NULL,            -- tokens of requests settled as reserved
    cost_micro  INTEGER NOT NULL,
    PRIMARY KEY (hour, user_id, key_id, model)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_hour_by_user ON usage_hour (user_id, hour);

-- The number of the last row that is in `usage_hour`.
CREATE TABLE summed (upto INTEGER NOT NULL) STRICT;
INSERT INTO summed VALUES (0);

-- The rows that are not in `usage_hour` yet, in its columns.
CREATE VIEW usage_lately AS
SELECT number, CAST(time AS INTEGER) / 3600 * 3600 AS hour, user_id, key_id, model,
    1 AS requests, rule = 'refunded' AS refunded,
    coalesce(input, 0) AS input, coalesce(output, 0) AS output,
    coalesce(cache_read, 0) AS cache_read, coalesce(cache_write, 0) AS cache_write,
    iif(rule IN ('reserved', 'crashed'), reserved, 0) AS estimated, cost_micro
FROM usage WHERE number > (SELECT upto FROM summed);

-- All sums, up to now.
CREATE VIEW usage_sums AS
SELECT hour, user_id, key_id, model, requests, refunded, input, output, cache_read, cache_write,
    estimated, cost_micro FROM usage_hour
UNION ALL
SELECT hour, user_id, key_id, model, requests, refunded, input, output, cache_read, cache_write,
    estimated, cost_micro FROM usage_lately;

-- The state of each limit, for the next start.
CREATE TABLE bucket (
    scope  TEXT    NOT NULL,  -- key or account
    owner  TEXT    NOT NULL,  -- id of the key or user
    kind   TEXT    NOT NULL,  -- requests or tokens
    per    INTEGER NOT NULL,  -- seconds
    refill TEXT    NOT NULL,  -- smooth or window
    size   INTEGER NOT NULL,
    used   INTEGER NOT NULL,
    moment INTEGER NOT NULL,  -- milliseconds
    PRIMARY KEY (owner, scope, kind, per)
) STRICT, WITHOUT ROWID;

-- The journal's batches: admitted requests and the state of their limits, each a list in JSON. A
-- batch is deleted once all its requests have ended and its limits are in `bucket`. After a crash,
-- the next start recovers the batches that are left.
CREATE TABLE batch (
    number  INTEGER NOT NULL PRIMARY KEY,
    after   INTEGER NOT NULL,  -- rows of its requests have higher numbers
    opened  TEXT    NOT NULL,
    buckets TEXT    NOT NULL
) STRICT;

-- Sums of the statement; only its triggers write here.
CREATE TABLE balance (
    user_id  TEXT    NOT NULL PRIMARY KEY,
    credited INTEGER NOT NULL DEFAULT 0,
    charged  INTEGER NOT NULL DEFAULT 0,
    micro    INTEGER NOT NULL GENERATED ALWAYS AS (credited - charged) VIRTUAL
) STRICT;

CREATE TABLE statement (
    id            INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    user_id       TEXT    NOT NULL,
    time          REAL    NOT NULL,
    kind          TEXT    NOT NULL CHECK (kind IN ('credit', 'charge')),
    amount_micro  INTEGER NOT NULL CHECK (amount_micro <> 0),  -- above zero: a credit
    balance_after INTEGER NOT NULL,
    request_id    TEXT,
    note          TEXT    NOT NULL DEFAULT '',
    CHECK (kind = 'credit' OR (amount_micro < 0 AND request_id IS NOT NULL))
) STRICT;

CREATE INDEX statement_by_user ON statement (user_id, id);
CREATE UNIQUE INDEX statement_by_request ON statement (request_id) WHERE request_id IS NOT NULL;

CREATE TRIGGER statement_keeps_its_rows BEFORE UPDATE ON statement BEGIN
    SELECT RAISE(ABORT, 'a statement is never changed');
END;

CREATE TRIGGER statement_loses_no_row BEFORE DELETE ON statement BEGIN
    SELECT RAISE(ABORT, 'a statement is never shortened');
END;

-- REPLACE would delete a row without the trigger above.
CREATE TRIGGER statement_adds_up BEFORE INSERT ON statement BEGIN
    SELECT RAISE(ABORT, 'a statement is never changed')
    WHERE EXISTS (SELECT 1 FROM statement WHERE id = NEW.id OR request_id = NEW.request_id);
    SELECT RAISE(ABORT, 'a statement adds up')
    WHERE NEW.balance_after <> NEW.amount_micro
        + coalesce((SELECT micro FROM balance WHERE user_id = NEW.user_id), 0);
END;

CREATE TRIGGER statement_moves_the_balance AFTER INSERT ON statement BEGIN
    INSERT INTO balance (user_id, credited, charged)
    VALUES (
        NEW.user_id,
        CASE NEW.kind WHEN 'credit' THEN NEW.amount_micro ELSE 0 END,
        CASE NEW.kind WHEN 'charge' THEN -NEW.amount_micro ELSE 0 END
    )
    ON CONFLICT (user_id) DO UPDATE SET
        credited = credited + excluded.credited, charged = charged + excluded.charged;
END;

-- Counts the changes that a running server needs to see: of users, keys and credits.
CREATE TABLE revision (number INTEGER NOT NULL) STRICT;
INSERT INTO revision VALUES (0);

CREATE TRIGGER users_insert_is_told AFTER INSERT ON users BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER users_update_is_told AFTER UPDATE ON users BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER users_delete_is_told AFTER DELETE ON users BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER keys_insert_is_told AFTER INSERT ON keys BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER keys_update_is_told AFTER UPDATE ON keys BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER keys_delete_is_told AFTER DELETE ON keys BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER credit_is_told AFTER INSERT ON statement WHEN NEW.kind = 'credit' BEGIN
    UPDATE revision SET number = number + 1;
END;
