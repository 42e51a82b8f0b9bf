-- What was used, what is left and what was paid. Moments are seconds since 1970, UTC;
-- money is whole micro-dollars. What follows from another row is written by triggers, in
-- the same transaction, so that it cannot be forgotten, doubled or left half done.

-- One row a request: written when it is admitted, closed once, when it is settled. It names
-- no user by reference: a look-up per request would buy nothing, and history outlives people.
CREATE TABLE usage (
    id              TEXT    NOT NULL PRIMARY KEY,  -- the request-id of its answer
    time            REAL    NOT NULL,              -- when it was admitted
    key_id          TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    model           TEXT    NOT NULL,              -- as asked for
    dialect         TEXT    NOT NULL,
    path            TEXT    NOT NULL,
    reserved_tokens INTEGER NOT NULL,
    reserved_micro  INTEGER NOT NULL,
    billed          INTEGER NOT NULL CHECK (billed IN (0, 1)),  -- drawn from the balance
    settled_at      REAL,                          -- null: it runs
    status          INTEGER,
    served          TEXT,                          -- the model that answered
    upstream        TEXT,
    input           INTEGER,                       -- tokens; null: the upstream did not say
    output          INTEGER,
    cache_read      INTEGER,
    cache_write     INTEGER,
    cost_micro      INTEGER,
    ttfb_us         INTEGER,
    duration_us     INTEGER,
    outcome         TEXT,
    rule            TEXT                           -- see relay.store.journal.Rule
) STRICT;

CREATE INDEX usage_by_time ON usage (time);
CREATE INDEX usage_by_user ON usage (user_id, time);
CREATE INDEX usage_open ON usage (id) WHERE settled_at IS NULL;  -- what a crash leaves behind

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

CREATE TRIGGER usage_is_summed_up AFTER UPDATE OF settled_at ON usage
WHEN OLD.settled_at IS NULL AND NEW.settled_at IS NOT NULL BEGIN
    INSERT INTO usage_hour VALUES (
        CAST(NEW.time AS INTEGER) / 3600 * 3600, NEW.user_id, NEW.key_id, NEW.model,
        1, NEW.rule = 'refunded',
        coalesce(NEW.input, 0), coalesce(NEW.output, 0),
        coalesce(NEW.cache_read, 0), coalesce(NEW.cache_write, 0),
        iif(NEW.rule IN ('reserved', 'crashed'), NEW.reserved_tokens, 0),
        coalesce(NEW.cost_micro, 0)
    )
    ON CONFLICT DO UPDATE SET
        requests = requests + 1,
        refunded = refunded + excluded.refunded,
        input = input + excluded.input,
        output = output + excluded.output,
        cache_read = cache_read + excluded.cache_read,
        cache_write = cache_write + excluded.cache_write,
        estimated = estimated + excluded.estimated,
        cost_micro = cost_micro + excluded.cost_micro;
END;

CREATE TRIGGER usage_is_charged AFTER UPDATE OF settled_at ON usage
WHEN OLD.settled_at IS NULL AND NEW.settled_at IS NOT NULL AND NEW.billed AND NEW.cost_micro > 0
BEGIN
    INSERT INTO statement (user_id, time, kind, amount_micro, balance_after, request_id, note)
    VALUES (
        NEW.user_id, NEW.settled_at, 'charge', -NEW.cost_micro,
        coalesce((SELECT micro FROM balance WHERE user_id = NEW.user_id), 0) - NEW.cost_micro,
        NEW.id, iif(NEW.rule = 'reported', '', 'settled by rule: ' || NEW.rule)
    );
END;
