-- What was used, what is left and what was paid. Moments are seconds since 1970, UTC;
-- money is whole micro-dollars.

-- One row a request, written once, soon after it has ended. It names no user by reference: history
-- outlives people. No index but the row's own number: rows come in the order of their ends, so
-- the latest are found at its end, and each index costs a quarter of what the row does.
CREATE TABLE usage (
    number      INTEGER NOT NULL PRIMARY KEY,
    id          TEXT    NOT NULL,              -- the request-id of its answer
    time        REAL    NOT NULL,              -- when it was admitted
    key_id      TEXT    NOT NULL,
    user_id     TEXT    NOT NULL,
    model       TEXT    NOT NULL,              -- as asked for
    dialect     TEXT    NOT NULL,
    reserved    INTEGER NOT NULL,              -- tokens
    status      INTEGER,
    served      TEXT,                          -- the model that answered
    upstream    TEXT,
    input       INTEGER,                       -- tokens; null: the upstream did not say
    output      INTEGER,
    cache_read  INTEGER,
    cache_write INTEGER,
    cost_micro  INTEGER NOT NULL,
    ttfb_us     INTEGER,
    duration_us INTEGER,
    outcome     TEXT    NOT NULL,
    rule        TEXT    NOT NULL,              -- see relay.store.entries.Rule
    -- What an upstream claims must leave room for sums.
    CHECK (abs(input) <= 1000000000000 AND abs(output) <= 1000000000000),
    CHECK (abs(cache_read) <= 1000000000000 AND abs(cache_write) <= 1000000000000),
    CHECK (abs(cost_micro) <= 1000000000000)
) STRICT;

-- The sums of every hour, by the moment of admission: they stay when the rows are pruned.
CREATE TABLE usage_hour (
    hour        INTEGER NOT NULL,            -- its first second
    user_id     TEXT    NOT NULL,
    key_id      TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    requests    INTEGER NOT NULL,
    refunded    INTEGER NOT NULL,            -- of these, the ones that cost nothing
    input       INTEGER NOT NULL,
    output      INTEGER NOT NULL,
    cache_read  INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    estimated   INTEGER NOT NULL,            -- tokens of requests that were settled as reserved
    cost_micro  INTEGER NOT NULL,
    PRIMARY KEY (hour, user_id, key_id, model)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_hour_by_user ON usage_hour (user_id, hour);

-- Up to which row `usage_hour` has them all.
CREATE TABLE summed (upto INTEGER NOT NULL) STRICT;
INSERT INTO summed VALUES (0);

-- The rows that it has not yet, in its shape.
CREATE VIEW usage_lately AS
SELECT number, CAST(time AS INTEGER) / 3600 * 3600 AS hour, user_id, key_id, model,
    1 AS requests, rule = 'refunded' AS refunded,
    coalesce(input, 0) AS input, coalesce(output, 0) AS output,
    coalesce(cache_read, 0) AS cache_read, coalesce(cache_write, 0) AS cache_write,
    iif(rule IN ('reserved', 'crashed'), reserved, 0) AS estimated, cost_micro
FROM usage WHERE number > (SELECT upto FROM summed);

-- All sums as they are at this moment.
CREATE VIEW usage_sums AS
SELECT hour, user_id, key_id, model, requests, refunded, input, output, cache_read, cache_write,
    estimated, cost_micro FROM usage_hour
UNION ALL
SELECT hour, user_id, key_id, model, requests, refunded, input, output, cache_read, cache_write,
    estimated, cost_micro FROM usage_lately;

-- What each limit has used, for the next start.
CREATE TABLE bucket (
    scope  TEXT    NOT NULL,  -- key or account
    owner  TEXT    NOT NULL,  -- whose
    kind   TEXT    NOT NULL,  -- requests or tokens
    per    INTEGER NOT NULL,  -- seconds
    refill TEXT    NOT NULL,  -- smooth or window
    size   INTEGER NOT NULL,
    used   INTEGER NOT NULL,
    moment INTEGER NOT NULL,  -- milliseconds
    PRIMARY KEY (owner, scope, kind, per)
) STRICT, WITHOUT ROWID;

-- What the journal wrote at once: the requests that were admitted, and what their limits have
-- used since; each a list in JSON. A batch goes once its requests have all ended and its limits
-- are in `bucket`. What a crash leaves here is taken over at the next start.
CREATE TABLE batch (
    number  INTEGER NOT NULL PRIMARY KEY,
    after   INTEGER NOT NULL,  -- the rows of its requests come after this one
    opened  TEXT    NOT NULL,
    buckets TEXT    NOT NULL
) STRICT;

-- Both sums only grow by what the statement says; nothing else writes here.
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
    amount_micro  INTEGER NOT NULL CHECK (amount_micro <> 0),  -- above zero: to the user's good
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

-- REPLACE would remove a row without the trigger above.
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

-- Counts the changes that a running server must know of: to people, keys and credits.
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
