-- needs: 1
-- A relay that has served alone joins: its limits go on with what was used until then.

-- Bring the use of windows: the entries of a node's outbox from `first` up to `upto`. These come
-- before all of its rows, so as a rule nobody else knows the windows. Where one is open already,
-- the use is added to it, and the window ends with the later one of both. Use that was brought
-- counts as a lease that is lost from the start. False: the entries are here already.
CREATE FUNCTION relay.bring_use(
    a_node text, first bigint, upto bigint, names text[], sizes bigint[], pers bigint[],
    used bigint[], ends_in bigint[], bonuses bigint[], bonus_windows int[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    nothing bigint[] := array_fill(0::bigint, ARRAY[cardinality(names)]);
    now bigint;
    w relay.quota_window;
    u record;
BEGIN
    UPDATE relay.replica r SET entry = upto WHERE r.node = a_node AND r.entry < first;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM relay.lock_windows(names, sizes, pers, nothing, nothing);
    now := relay.now_ms();
    -- The use of a window stands before its bonus.
    FOR u IN
        SELECT it.* FROM unnest(names, pers, used, ends_in, bonuses, bonus_windows)
            WITH ORDINALITY it (name, per, used, ends_in, bonus, bonus_windows, place)
        ORDER BY it.place
    LOOP
        SELECT * INTO w FROM relay.quota_window it WHERE it.name = u.name;
        w := relay.advance_window(w, now);
        IF u.used > 0 THEN
            IF w.ends = 0 THEN
                w.per := u.per;
                w.bonus := CASE WHEN w.bonus_windows > 0 THEN w.bonus ELSE 0 END;
                w.bonus_windows := greatest(0, w.bonus_windows - 1);
            END IF;
            w.per := greatest(w.per, u.per);
            w.ends := greatest(w.ends, now + u.ends_in);
            INSERT INTO relay.lease AS l
            VALUES (u.name, 'before ' || a_node, 0, u.used, u.used, 0, true)
            ON CONFLICT (window_name, name) DO UPDATE  -- an import that was cut off brings it again
            SET used = greatest(l.used, excluded.used),
                ceiling = greatest(l.ceiling, excluded.ceiling);
        END IF;
        IF u.bonus > 0 THEN
            w.bonus := greatest(w.bonus, u.bonus);
            w.bonus_windows := greatest(w.bonus_windows, u.bonus_windows);
        END IF;
        UPDATE relay.quota_window it SET epoch = w.epoch, per = w.per, ends = w.ends,
            bonus = w.bonus, bonus_windows = w.bonus_windows
        WHERE it.name = u.name;
    END LOOP;
    RETURN true;
END $$;
