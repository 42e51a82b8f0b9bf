-- needs: 1
-- The starts of this server and the nodes that are alive, and by these, whether anything is granted
-- yet.

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

-- The present incarnation of this server. One that has restarted, was restored or took over from
-- another may lack the last commits of the one before.
CREATE FUNCTION relay.present_engine() RETURNS relay.engine LANGUAGE plpgsql AS $$
DECLARE
    present text := extract(epoch FROM pg_postmaster_start_time()) || ' '
        || left(pg_walfile_name(pg_current_wal_lsn()), 8);  -- the timeline changes at a promotion
    engine relay.engine;
BEGIN
    SELECT * INTO engine FROM relay.engine;
    IF engine.start <> present THEN
        -- Not counted: the count of a start whose commit was lost would come again. The last moment
        -- of the start before is that of its latest node; one in the future is of a clock that was
        -- ahead, and would hide the others.
        UPDATE relay.engine e
        SET start = present, incarnation = hashtextextended(present, 0), since = relay.now_ms(),
            waits_from = coalesce((SELECT max(n.seen) FROM relay.node n
                                   WHERE n.seen <= relay.now_ms()), 0) - 15000
        WHERE e.start <> present;
        SELECT * INTO engine FROM relay.engine;
    END IF;
    RETURN engine;
END $$;

-- Whether nothing is granted yet: a node may still hold a grant that this incarnation does not know.
-- One that was silent before has no lease any more: it reports by its journal when it starts.
CREATE FUNCTION relay.is_frozen(engine relay.engine) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN relay.now_ms() < engine.since + 5000 AND EXISTS (
        SELECT FROM relay.node n
        WHERE n.incarnation <> engine.incarnation AND n.seen > engine.waits_from);
END $$;

CREATE FUNCTION relay.active_nodes() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT greatest(1, count(*)) FROM relay.node n WHERE n.seen > relay.now_ms() - 15000);
END $$;

-- A node has not been heard of for ten minutes.
CREATE FUNCTION relay.is_silent(name text) RETURNS boolean LANGUAGE sql AS $$
    SELECT NOT EXISTS (SELECT FROM relay.node n
                       WHERE n.name = is_silent.name AND n.seen > relay.now_ms() - 600000)
$$;

-- A node is alive. `reported`: the incarnation under which it has reported all of its use; NULL: it
-- has used nothing.
CREATE FUNCTION relay.poll(node text, boot text, reported bigint)
RETURNS TABLE (incarnation bigint, nodes bigint, seq bigint) LANGUAGE plpgsql AS $$
DECLARE
    engine relay.engine := relay.present_engine();
BEGIN
    INSERT INTO relay.node AS n
    VALUES (node, poll.boot, relay.now_ms(), coalesce(reported, engine.incarnation))
    ON CONFLICT (name) DO UPDATE
    SET boot = excluded.boot, seen = excluded.seen, incarnation = excluded.incarnation;
    RETURN QUERY SELECT engine.incarnation, relay.active_nodes(),
                        (SELECT coalesce(max(c.seq), 0) FROM relay.change c);
END $$;

CREATE FUNCTION relay.leave(node text, boot text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM relay.node n WHERE n.name = leave.node AND n.boot = leave.boot
$$;
