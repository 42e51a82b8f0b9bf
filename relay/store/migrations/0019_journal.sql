-- The journal: what the requests' loop writes. A batch of entries is one row, or a few if it is
-- long. Another thread brings batches into the other tables ("unfolds" them) and frees their slots.
-- A slot is used again and again, and its row fills one page of 4 KiB, so that it dirties that page
-- and no other. No index but the slot, for the same reason.
CREATE TABLE journal (
    slot    INTEGER NOT NULL PRIMARY KEY,
    number  INTEGER NOT NULL,  -- of the batch; up to `unfolded.limits_upto` the row counts no more
    part    INTEGER NOT NULL,  -- of the batch, from 0
    body    BLOB    NOT NULL,  -- all parts are JSON, see relay.store.batch
    padding BLOB    NOT NULL
) STRICT;

-- The numbers of the last batch whose entries are in the other tables, and of the last one whose
-- limits are in `bucket`, which come later.
CREATE TABLE unfolded (upto INTEGER NOT NULL, limits_upto INTEGER NOT NULL) STRICT;
INSERT INTO unfolded VALUES (0, 0);

-- Requests that were admitted and had not ended when their batch was unfolded. The next start
-- settles those that a crash left here.
CREATE TABLE running (
    id           TEXT    NOT NULL PRIMARY KEY,
    time         REAL    NOT NULL,
    key_id       TEXT    NOT NULL,
    user_id      TEXT    NOT NULL,
    model        TEXT    NOT NULL,
    dialect      TEXT    NOT NULL,
    reserved     INTEGER NOT NULL,
    billed_micro INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Batches of the earlier layout. Of a request that was admitted twice, the last row holds.
INSERT OR REPLACE INTO running
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
    value ->> 7
FROM batch, json_each(opened)
WHERE value ->> 0 NOT IN (
    SELECT id FROM usage WHERE number > (SELECT min(after) FROM batch))
ORDER BY batch.number, key;

INSERT INTO bucket
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
    value ->> 7
FROM batch, json_each(buckets) WHERE true
ORDER BY batch.number, key
ON CONFLICT DO UPDATE SET refill = excluded.refill, size = excluded.size, used = excluded.used,
    moment = excluded.moment;

DROP TABLE batch;
