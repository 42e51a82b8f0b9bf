-- needs: 1
-- Windows of limits, the nodes' leases on them, and the nodes themselves. Moments are epoch
-- milliseconds of this server's clock; amounts are requests, tokens or micro-dollars.

CREATE TABLE relay.engine (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    start text NOT NULL DEFAULT '',         -- of this server, on whichever machine
    incarnation bigint NOT NULL DEFAULT 1,  -- one start's number; commits may be lost before another
    since bigint NOT NULL DEFAULT 0,
    waits_from bigint NOT NULL DEFAULT 0  -- nodes seen later may hold what this start does not know
);
INSERT INTO relay.engine DEFAULT VALUES;

CREATE TABLE relay.node (
    name text COLLATE "C" PRIMARY KEY,
    boot text NOT NULL,
    seen bigint NOT NULL,
    incarnation bigint NOT NULL  -- under which it has reported all of its use
) WITH (fillfactor = 50);

CREATE TABLE relay.quota_window (
    name text COLLATE "C" PRIMARY KEY,
    size bigint NOT NULL,
    per bigint NOT NULL,
    epoch bigint NOT NULL,            -- of the present window, or of the next where none is open
    ends bigint NOT NULL DEFAULT 0,   -- 0: no window is open
    bonus bigint NOT NULL DEFAULT 0,  -- by which this window and the next ones are larger
    bonus_windows int NOT NULL DEFAULT 0  -- that will have it, the present one left out
) WITH (fillfactor = 70);

-- Changes of windows by an administrator that were carried out.
CREATE TABLE relay.adjustment (name text PRIMARY KEY, at bigint NOT NULL);

CREATE TABLE relay.lease (
    window_name text COLLATE "C" NOT NULL REFERENCES relay.quota_window ON DELETE CASCADE,
    name text COLLATE "C" NOT NULL,   -- a node and its boot
    number bigint NOT NULL,           -- of its last claim
    used bigint NOT NULL,
    ceiling bigint NOT NULL,
    expires bigint NOT NULL,
    is_lost boolean NOT NULL,         -- its node was silent for too long: all of it is used
    PRIMARY KEY (window_name, name)
) WITH (
    -- Each claim changes one row: room beside it keeps the index as it is.
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0
);
