-- For several nodes that share their rows (`relay.store.replication`). Empty where there is one.

-- This database as a node's. `seen`: the number of the last row of other nodes that is here.
-- `schema`: the one that these rows were applied under. `is_applying` is 1 only inside of the
-- transactions that apply rows of other nodes, whose triggers then capture nothing.
CREATE TABLE replica (
    one         INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    node        TEXT    NOT NULL,
    number      INTEGER NOT NULL,  -- ids of this node are this number, modulo 1024
    seen        INTEGER NOT NULL DEFAULT 0,
    schema      INTEGER NOT NULL,
    is_applying INTEGER NOT NULL DEFAULT 0,
    has_left    INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The changes that the other nodes have yet to get, in their order. The row itself is read when it
-- is sent. `pk`: JSON, octets in hexadecimal. `columns`: JSON, those that changed; null: all.
-- `sent`: the number under which the change was shared; null: it was not.
CREATE TABLE outbox (
    id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    tbl     TEXT    NOT NULL,
    pk      TEXT    NOT NULL,
    op      TEXT    NOT NULL CHECK (op IN ('insert', 'update', 'delete')),
    columns TEXT,
    sent    INTEGER
) STRICT;

CREATE INDEX outbox_by_row ON outbox (tbl, pk);
CREATE INDEX outbox_sent ON outbox (sent) WHERE sent IS NOT NULL;

-- Rows of other nodes that a constraint refuses, such as a second account with one address. They
-- are tried again whenever rows are applied.
CREATE TABLE held_row (
    tbl    TEXT    NOT NULL,
    pk     TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    image  TEXT    NOT NULL,
    reason TEXT    NOT NULL,
    PRIMARY KEY (tbl, pk)
) STRICT;

-- The last request of each other node that is in `usage`, by the id in its outbox: a request that
-- comes again is not counted again.
CREATE TABLE usage_received (
    node  TEXT    NOT NULL PRIMARY KEY,
    entry INTEGER NOT NULL
) STRICT;

-- The sum is checked where an entry is made. Another node's comes as it was made there.
DROP TRIGGER statement_adds_up;

CREATE TRIGGER statement_adds_up BEFORE INSERT ON statement BEGIN
    SELECT RAISE(ABORT, 'a statement is never changed')
    WHERE EXISTS (SELECT 1 FROM statement WHERE id = NEW.id OR request_id = NEW.request_id);
    SELECT RAISE(ABORT, 'a statement adds up')
    WHERE NEW.balance_after <> NEW.amount_micro
        + coalesce((SELECT micro FROM balance WHERE user_id = NEW.user_id), 0)
        AND NOT EXISTS (SELECT 1 FROM replica WHERE is_applying);
END;
