-- needs: 1
-- The owner's answer to the nodes' claims on windows: how much of a window a lease gets.

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
