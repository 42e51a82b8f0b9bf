-- Durations of requests that were answered completely, as a histogram by hour of admission. Filled
-- beside the requests, within a minute (`relay.store.latency`), and pruned with them.
CREATE TABLE latency_hour (
    user_id  TEXT    NOT NULL,
    hour     INTEGER NOT NULL,  -- its first second
    key_id   TEXT    NOT NULL,
    model    TEXT    NOT NULL,
    part     TEXT    NOT NULL CHECK (part IN ('first', 'whole')),  -- until the first octet, or the end
    at_most  INTEGER NOT NULL,  -- milliseconds; more than the bound below it
    requests INTEGER NOT NULL,
    PRIMARY KEY (user_id, hour, key_id, model, part, at_most)
) STRICT, WITHOUT ROWID;

-- The number of the last row that is in `latency_hour`.
CREATE TABLE latency_summed (upto INTEGER NOT NULL) STRICT;
INSERT INTO latency_summed VALUES (0);
