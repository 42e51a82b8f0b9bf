-- needs: 1
-- Windows of limits and the nodes' leases on them: when a window begins and ends, and when a lease
-- counts as used. Amounts are requests, tokens or micro-dollars. Together with 0004_acquire this is
-- the owner's side of shared windows: relay/quota/share/shared_window.py, line for line.

CREATE TABLE relay.quota_window (
    name text COLLATE "C" PRIMARY KEY,
    size bigint NOT NULL,
    per bigint NOT NULL,
    epoch bigint NOT NULL,            -- of the present window, or of the next where none is open
    ends bigint NOT NULL DEFAULT 0,   -- 0: no window is open
    bonus bigint NOT NULL DEFAULT 0,  -- by which this window and the next ones are larger
    bonus_windows int NOT NULL DEFAULT 0  -- that will have it, the present one left out
) WITH (fillfactor = 70);

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

-- Changes of windows by an administrator that were carried out.
CREATE TABLE relay.adjustment (name text PRIMARY KEY, at bigint NOT NULL);

-- After so long without a claim, and a little more, a lease counts as used.
CREATE FUNCTION relay.lease_time() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT 10000::bigint $$;

-- Windows that are claimed for the first time are made, then all are locked, always in the order of
-- their names: two calls that share windows wait for each other once, and never in a circle.
-- A new window begins with what was used of it before it was shared, as far as a node knows: a lease
-- that is lost from the start.
CREATE FUNCTION relay.lock_windows(
    names text[], sizes bigint[], pers bigint[], seeds bigint[], seed_ends bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    expected int := (SELECT count(DISTINCT it) FROM unnest(names) it);
    now bigint := relay.now_ms();
    locked int;
BEGIN
    LOOP
        IF (SELECT count(*) FROM relay.quota_window w WHERE w.name = ANY (names)) < expected THEN
            -- The first epoch is later than any of a window of this name that was deleted.
            WITH claimed AS (
                SELECT DISTINCT ON (it.name COLLATE "C") it.*
                FROM unnest(names, sizes, pers, seeds, seed_ends) it (name, size, per, seed, ends_in)
                ORDER BY it.name COLLATE "C"
            ), made AS (
                INSERT INTO relay.quota_window (name, size, per, epoch, ends)
                SELECT c.name, c.size, c.per, now, CASE WHEN c.seed > 0 THEN now + c.ends_in ELSE 0 END
                FROM claimed c
                ON CONFLICT DO NOTHING
                RETURNING name
            )
            INSERT INTO relay.lease
            SELECT c.name, 'before', 0, c.seed, c.seed, 0, true
            FROM claimed c JOIN made m ON m.name = c.name COLLATE "C" WHERE c.seed > 0;
        END IF;
        PERFORM 1 FROM relay.quota_window w WHERE w.name = ANY (names) ORDER BY w.name FOR UPDATE;
        GET DIAGNOSTICS locked = ROW_COUNT;
        EXIT WHEN locked = expected;  -- else one was deleted between the two statements
    END LOOP;
END $$;

-- End a window. Its leases stay, empty, while their nodes report: the number of the last claim
-- separates later ones from those that were late.
CREATE FUNCTION relay.close_window(w relay.quota_window) RETURNS relay.quota_window
LANGUAGE plpgsql AS $$
BEGIN
    w.ends := 0;
    w.epoch := w.epoch + 1;
    DELETE FROM relay.lease l WHERE l.window_name = w.name AND l.is_lost;
    UPDATE relay.lease l SET used = 0, ceiling = 0
    WHERE l.window_name = w.name AND (l.used <> 0 OR l.ceiling <> 0);
    RETURN w;
END $$;

-- End a window that is over, and count leases of silent nodes as used.
CREATE FUNCTION relay.advance_window(w relay.quota_window, now bigint) RETURNS relay.quota_window
LANGUAGE plpgsql AS $$
DECLARE
    grace CONSTANT bigint := relay.lease_time() / 5;
BEGIN
    IF w.ends = 0 THEN
        RETURN w;
    END IF;
    IF w.ends - now > w.per THEN  -- the clock was stepped back since it opened
        w.ends := now + w.per;
    END IF;
    IF now >= w.ends THEN
        RETURN relay.close_window(w);
    END IF;
    -- After a step back of the clock no lease may outlast its time from now.
    UPDATE relay.lease l
    SET expires = least(l.expires, now + relay.lease_time()),
        is_lost = l.is_lost OR now >= least(l.expires, now + relay.lease_time()) + grace
    WHERE l.window_name = w.name
      AND (l.expires > now + relay.lease_time() OR (now >= l.expires + grace AND NOT l.is_lost));
    RETURN w;
END $$;

-- An administrator changes windows, once: `renew` ends all of owners (`names` has how their names
-- begin), `reset` ends those named, `bonus` makes the next ones larger. `change` names the act,
-- which several nodes may carry out. Leases that are out may still be used. Windows that are not
-- known begin as nodes say; a bonus makes them.
CREATE FUNCTION relay.adjust(
    change text, kind text, names text[], pers bigint[], amount bigint, windows int
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now bigint := relay.now_ms();
    w relay.quota_window;
BEGIN
    INSERT INTO relay.adjustment VALUES (change, now) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF kind = 'renew' THEN
        names := ARRAY(
            SELECT it.name
            FROM unnest(names) p
            JOIN relay.quota_window it
                ON it.name >= p COLLATE "C" AND it.name < (p || '~') COLLATE "C"
            WHERE it.name NOT LIKE '%/money/0');  -- not balances
    ELSIF kind = 'bonus' THEN
        INSERT INTO relay.quota_window (name, size, per, epoch)
        SELECT it.name, 0, it.per, now FROM unnest(names, pers) it (name, per)
        ORDER BY it.name COLLATE "C"
        ON CONFLICT DO NOTHING;
    END IF;
    FOR w IN SELECT * FROM relay.quota_window it WHERE it.name = ANY (names)
             ORDER BY it.name FOR UPDATE LOOP
        w := relay.advance_window(w, now);
        IF kind = 'bonus' THEN
            w.bonus := CASE WHEN windows > 0 THEN amount ELSE 0 END;
            w.bonus_windows := greatest(0, windows - (w.ends <> 0)::int);
        ELSIF w.ends <> 0 THEN
            w := relay.close_window(w);
        END IF;
        UPDATE relay.quota_window it
        SET epoch = w.epoch, ends = w.ends, bonus = w.bonus, bonus_windows = w.bonus_windows
        WHERE it.name = w.name;
    END LOOP;
END $$;

-- Figures for the operator.
CREATE FUNCTION relay.figures()
RETURNS TABLE (incarnation bigint, nodes bigint, windows bigint, leases bigint, unused bigint,
               lost bigint)
LANGUAGE sql AS $$
    SELECT (SELECT e.incarnation FROM relay.engine e), relay.active_nodes(),
           (SELECT count(*) FROM relay.quota_window w WHERE w.ends > relay.now_ms()),
           count(*) FILTER (WHERE NOT l.is_lost AND l.ceiling > l.used),
           coalesce(sum(l.ceiling - l.used)
                    FILTER (WHERE NOT l.is_lost AND l.ceiling > l.used), 0)::bigint,
           count(*) FILTER (WHERE l.is_lost AND l.ceiling > l.used)
    FROM relay.lease l
$$;
