-- needs: 1
-- The owner's side of shared windows: relay/quota/share/shared_window.py, line for line.

CREATE FUNCTION relay.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

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

CREATE TYPE relay.claim AS (
    window_name text, size bigint, per bigint, lease text, number bigint, epoch bigint,
    used bigint, ceiling bigint, want bigint, need bigint, ends_in bigint,
    seed bigint, seed_ends_in bigint  -- the use before the window was shared
);

CREATE TYPE relay.reported AS (
    w relay.quota_window,
    latest boolean,     -- whether the claim is the latest of its lease
    others bigint,      -- the part of the window that other leases take
    unused bigint,      -- and, of nodes that are alive, what they have not used
    own_number bigint,  -- of the lease as it stands; NULL: there is none
    own_used bigint,
    own_ceiling bigint
);

-- Take a claim's totals into its window, which is locked.
CREATE FUNCTION relay.report_claim(c relay.claim, now bigint) RETURNS relay.reported
LANGUAGE plpgsql AS $$
DECLARE
    before relay.quota_window;
    r relay.reported;
    w relay.quota_window;
    known bigint;
    knows boolean;
BEGIN
    SELECT * INTO before FROM relay.quota_window it WHERE it.name = c.window_name;
    w := before;
    w := relay.advance_window(w, now);
    w.size := c.size + CASE WHEN w.ends <> 0 OR w.bonus_windows > 0 THEN w.bonus ELSE 0 END;
    SELECT l.number INTO known FROM relay.lease l
    WHERE l.window_name = c.window_name AND l.name = c.lease;
    r.latest := known IS NULL OR c.number > known;
    IF r.latest THEN
        IF c.epoch > w.epoch OR (c.epoch = w.epoch AND w.ends = 0) THEN
            -- This server has lost the opening of the claim's window: go on from the nodes' totals.
            w.epoch := c.epoch;
            w.ends := now + least(greatest(w.per, c.per), c.ends_in);
            IF c.ends_in = 0 THEN
                w := relay.close_window(w);
            END IF;
        END IF;
        knows := c.epoch = w.epoch;
        IF w.ends <> 0 AND (known IS NOT NULL OR knows) THEN
            -- A node that does not know this window yet has not used it, nor will by earlier grants.
            INSERT INTO relay.lease AS l
            VALUES (c.window_name, c.lease, c.number, CASE WHEN knows THEN c.used ELSE 0 END,
                    CASE WHEN knows THEN c.ceiling ELSE 0 END, now + relay.lease_time(), false)
            ON CONFLICT (window_name, name) DO UPDATE
            SET number = excluded.number, used = excluded.used, ceiling = excluded.ceiling,
                expires = excluded.expires, is_lost = false;
            IF (greatest(c.used, c.ceiling) = 0 OR NOT knows)
               AND NOT EXISTS (SELECT FROM relay.lease l WHERE l.window_name = c.window_name
                               AND (l.used > 0 OR l.ceiling > 0)) THEN
                w := relay.close_window(w);
                -- It was not used after all: the next one has its bonus.
                w.bonus_windows := w.bonus_windows + (w.bonus > 0)::int;
            END IF;
        END IF;
    END IF;
    IF w IS DISTINCT FROM before THEN
        UPDATE relay.quota_window it SET size = w.size, epoch = w.epoch, ends = w.ends,
            bonus_windows = w.bonus_windows
        WHERE it.name = c.window_name;
    END IF;
    SELECT coalesce(sum(greatest(l.used, l.ceiling)) FILTER (WHERE l.name <> c.lease), 0),
           coalesce(sum(greatest(0, l.ceiling - l.used))
                    FILTER (WHERE l.name <> c.lease AND NOT l.is_lost), 0),
           max(l.number) FILTER (WHERE l.name = c.lease),
           max(l.used) FILTER (WHERE l.name = c.lease),
           max(l.ceiling) FILTER (WHERE l.name = c.lease)
    INTO r.others, r.unused, r.own_number, r.own_used, r.own_ceiling
    FROM relay.lease l WHERE l.window_name = c.window_name;
    r.w := w;
    RETURN r;
END $$;

CREATE TYPE relay.granted AS (
    number bigint, epoch bigint, ceiling bigint, ends_in bigint, expires_in bigint, size bigint,
    free bigint, elsewhere bigint
);

-- Answer a claim that was reported. `supplied`: its request can be admitted in all windows, and the
-- claim may have more; one of a request that waits opens the window.
CREATE FUNCTION relay.grant_claim(
    c relay.claim, r relay.reported, now bigint, nodes bigint, supplied boolean
) RETURNS relay.granted LANGUAGE plpgsql AS $$
DECLARE
    ends bigint := (r.w).ends;
    used bigint := coalesce(r.own_used, 0);
    total bigint := coalesce(r.own_ceiling, 0);  -- of this lease: its new ceiling
    free bigint := (r.w).size - r.others - greatest(used, total);
    share bigint := 0;
BEGIN
    IF supplied AND r.latest THEN
        IF c.need > 0 AND ends = 0 THEN
            -- For as long as the claim says: a window may end with a month, or with a plan's period.
            ends := now + c.per;
            UPDATE relay.quota_window it
            SET ends = now + c.per, per = c.per, bonus_windows = greatest(0, it.bonus_windows - 1),
                bonus = CASE WHEN it.bonus_windows > 0 THEN it.bonus ELSE 0 END
            WHERE it.name = c.window_name;
        END IF;
        IF ends <> 0 THEN
            -- Less and less of what is free, so that others find some.
            IF free >= greatest(c.need, 1) THEN
                share := least(greatest(c.want, c.need), greatest(c.need, free / (2 * nodes), 1));
            END IF;
            total := total + share;
            IF r.own_number IS NULL THEN
                INSERT INTO relay.lease VALUES (c.window_name, c.lease, c.number, 0, total,
                                                now + relay.lease_time(), false);
            ELSIF share > 0 OR r.own_number <> c.number THEN
                UPDATE relay.lease l
                SET number = c.number, ceiling = total,
                    expires = now + relay.lease_time(), is_lost = false
                WHERE l.window_name = c.window_name AND l.name = c.lease;
            END IF;
            free := (r.w).size - r.others - greatest(used, total);
        END IF;
    ELSIF c.need > free AND r.unused > 0 THEN
        -- Others hold what would help. Of two that ask each other, the later name gives way.
        PERFORM pg_notify('relay_recall', c.lease || ' ' || c.window_name);
    END IF;
    RETURN (c.number, (r.w).epoch, total, greatest(0, ends - now), relay.lease_time(),
            (r.w).size, greatest(0, free), r.unused)::relay.granted;
END $$;

-- Answer claims in their order. Those of one request stand together, under one number in
-- `requests`: if one of their windows cannot supply its need, none gives more. `at` is the moment,
-- else the server's clock once all windows are locked. `frozen`: nothing more is granted.
CREATE FUNCTION relay.answer_claims(
    requests int[], claims relay.claim[], nodes bigint, frozen boolean, at bigint DEFAULT NULL
) RETURNS SETOF relay.granted LANGUAGE plpgsql AS $$
DECLARE
    now bigint;
    c relay.claim;
    r relay.reported;
    reported relay.reported[];
    supplied boolean := NOT frozen;
    first int := 1;
BEGIN
    PERFORM relay.lock_windows(
        array_agg(it.window_name), array_agg(it.size), array_agg(it.per), array_agg(it.seed),
        array_agg(it.seed_ends_in)) FROM unnest(claims) it;
    now := coalesce(at, relay.now_ms());
    FOR i IN 1 .. cardinality(claims) LOOP
        c := claims[i];
        r := relay.report_claim(c, now);
        reported[i] := r;
        IF c.need > 0 AND c.need > (r.w).size - r.others
                - greatest(coalesce(r.own_used, 0), coalesce(r.own_ceiling, 0)) THEN
            supplied := false;
        END IF;
        CONTINUE WHEN requests[i + 1] = requests[i];
        FOR j IN first .. i LOOP
            RETURN NEXT relay.grant_claim(claims[j], reported[j], now, nodes, supplied);
        END LOOP;
        first := i + 1;
        supplied := NOT frozen;
    END LOOP;
END $$;
