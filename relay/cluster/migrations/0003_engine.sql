-- needs: 1
-- The calls of a node: claims, the poll of each second, and what is left when it stops.

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

-- Claims of a node, see `answer_claims`. `reported`: the incarnation that has all of its use.
CREATE FUNCTION relay.acquire(
    node text, reported bigint, requests int[], window_names text[], sizes bigint[],
    pers bigint[], leases text[], numbers bigint[], epochs bigint[], used bigint[],
    ceilings bigint[], wants bigint[], needs bigint[], ends_in bigint[], seeds bigint[],
    seed_ends bigint[]
) RETURNS TABLE (
    incarnation bigint, frozen boolean, number bigint, epoch bigint, ceiling bigint,
    remaining_time bigint, expires_in bigint, size bigint, free bigint, elsewhere bigint
) LANGUAGE plpgsql AS $$
DECLARE
    engine relay.engine := relay.present_engine();
    is_frozen boolean := false;
    claims relay.claim[] := ARRAY(
        SELECT (c.window_name, c.size, c.per, c.lease, c.number, c.epoch, c.used, c.ceiling, c.want,
                c.need, c.ends_in, c.seed, c.seed_ends_in)::relay.claim
        FROM unnest(window_names, sizes, pers, leases, numbers, epochs, used, ceilings, wants, needs,
                    ends_in, seeds, seed_ends)
            WITH ORDINALITY c (window_name, size, per, lease, number, epoch, used, ceiling, want,
                               need, ends_in, seed, seed_ends_in, place)
        ORDER BY c.place);
BEGIN
    IF relay.now_ms() < engine.since + 5000 THEN
        UPDATE relay.node n SET incarnation = reported
        WHERE n.name = node AND n.incarnation <> reported;
        is_frozen := relay.is_frozen(engine);
    END IF;
    RETURN QUERY SELECT engine.incarnation, is_frozen, g.*
    FROM relay.answer_claims(requests, claims, relay.active_nodes(), is_frozen) g;
END $$;

-- An administrator changes windows, once: `renew` ends all of owners (`names` has how their names
-- begin), `reset` ends those named, `bonus` makes the next ones larger. `change` names the act, which several nodes may carry out. Leases that are
-- out may still be used. Windows that are not known begin as nodes say; a bonus makes them.
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

-- Something that nodes keep in memory has changed. Numbered in the order of the commits, so that a
-- reader who has seen a number has seen all before it.
CREATE TABLE relay.change (
    seq bigint PRIMARY KEY,
    kind text NOT NULL,
    id text NOT NULL,
    at bigint NOT NULL DEFAULT relay.now_ms()
);

CREATE FUNCTION relay.note_change(kind text, id text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('relay.change'));
    INSERT INTO relay.change (seq, kind, id)
    VALUES ((SELECT coalesce(max(c.seq), 0) + 1 FROM relay.change c), note_change.kind,
            note_change.id)
    RETURNING seq INTO number;
    PERFORM pg_notify('relay_change', number::text);
    RETURN number;
END $$;

-- A node is alive. `reported`: the incarnation under which it has reported all of its use; NULL: it
-- has used nothing.
CREATE FUNCTION relay.poll(node text, boot text, reported bigint)
RETURNS TABLE (incarnation bigint, nodes bigint, seq bigint) LANGUAGE plpgsql AS $$
DECLARE
    engine relay.engine := relay.present_engine();
BEGIN
    INSERT INTO relay.node AS n VALUES (node, poll.boot, relay.now_ms(), coalesce(reported, engine.incarnation))
    ON CONFLICT (name) DO UPDATE
    SET boot = excluded.boot, seen = excluded.seen, incarnation = excluded.incarnation;
    RETURN QUERY SELECT engine.incarnation, relay.active_nodes(),
                        (SELECT coalesce(max(c.seq), 0) FROM relay.change c);
END $$;

CREATE FUNCTION relay.leave(node text, boot text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM relay.node n WHERE n.name = leave.node AND n.boot = leave.boot
$$;

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

-- Delete what no node needs any more: windows that ended a day ago, old changes, and nodes that are
-- gone. One call at a time does it; returns the number of windows.
CREATE FUNCTION relay.tidy() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    day CONSTANT bigint := 86400000;
    now bigint := relay.now_ms();
    deleted bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('relay.tidy')) THEN
        RETURN 0;
    END IF;
    DELETE FROM relay.quota_window w
    WHERE w.name IN (
        SELECT o.name FROM relay.quota_window o
        WHERE o.ends < now - day AND NOT EXISTS (
            SELECT FROM relay.lease l WHERE l.window_name = o.name AND l.expires > now - day)
        ORDER BY o.name LIMIT 5000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    DELETE FROM relay.node n WHERE n.seen < now - day;
    DELETE FROM relay.adjustment a WHERE a.at < now - 30 * day;
    DELETE FROM relay.change c
    WHERE c.at < now - day AND c.seq < (SELECT max(o.seq) FROM relay.change o);
    RETURN deleted;
END $$;
