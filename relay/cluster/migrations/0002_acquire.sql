-- needs: 1
-- The owner's side of shared windows: relay/quota/share/shared_window.py, line for line.

CREATE FUNCTION relay.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- After so long without a claim, and a little more, a lease counts as used.
CREATE FUNCTION relay.lease_time() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT 10000::bigint $$;

-- Windows that are claimed for the first time are made, then all are locked, always in the order of
-- their names: two calls that share windows wait for each other once, and never in a circle.
CREATE FUNCTION relay.lock_windows(names text[], sizes bigint[], pers bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    expected int := (SELECT count(DISTINCT it) FROM unnest(names) it);
    locked int;
BEGIN
    LOOP
        IF (SELECT count(*) FROM relay.quota_window w WHERE w.name = ANY (names)) < expected THEN
            -- The first epoch is later than any of a window of this name that was deleted.
            INSERT INTO relay.quota_window (name, size, per, epoch)
            SELECT DISTINCT ON (it.name COLLATE "C") it.name, it.size, it.per, relay.now_ms()
            FROM unnest(names, sizes, pers) it (name, size, per)
            ORDER BY it.name COLLATE "C"
            ON CONFLICT DO NOTHING;
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
    grace CONSTANT bigint := 2000;
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
    used bigint, ceiling bigint, want bigint, need bigint, ends_in bigint
);

-- Take a claim's totals into its window, which is locked. `latest`: it is the latest of its lease.
CREATE FUNCTION relay.report_claim(
    c relay.claim, now bigint, OUT w relay.quota_window, OUT latest boolean
) LANGUAGE plpgsql AS $$
DECLARE
    before relay.quota_window;
    known bigint;
    knows boolean;
BEGIN
    SELECT * INTO before FROM relay.quota_window it WHERE it.name = c.window_name;
    w := before;
    w.size := c.size;
    w := relay.advance_window(w, now);
    SELECT l.number INTO known FROM relay.lease l
    WHERE l.window_name = c.window_name AND l.name = c.lease;
    latest := known IS NULL OR c.number > known;
    IF latest THEN
        IF c.epoch > w.epoch OR (c.epoch = w.epoch AND w.ends = 0) THEN
            -- This server has lost the opening of the claim's window: go on from the nodes' totals.
            w.epoch := c.epoch;
            w.ends := now + least(w.per, c.ends_in);
            IF c.ends_in = 0 THEN
                w := relay.close_window(w);
            END IF;
        END IF;
        IF w.ends <> 0 AND (known IS NOT NULL OR c.epoch = w.epoch) THEN
            -- A node that does not know this window yet has not used it, nor will by earlier grants.
            knows := c.epoch = w.epoch;
            INSERT INTO relay.lease AS l
            VALUES (c.window_name, c.lease, c.number, CASE WHEN knows THEN c.used ELSE 0 END,
                    CASE WHEN knows THEN c.ceiling ELSE 0 END, now + relay.lease_time(), false)
            ON CONFLICT (window_name, name) DO UPDATE
            SET number = excluded.number, used = excluded.used, ceiling = excluded.ceiling,
                expires = excluded.expires, is_lost = false;
            IF greatest(c.used, c.ceiling) = 0 OR NOT knows THEN
                IF NOT EXISTS (SELECT FROM relay.lease l WHERE l.window_name = c.window_name
                               AND (l.used > 0 OR l.ceiling > 0)) THEN
                    w := relay.close_window(w);
                END IF;
            END IF;
        END IF;
    END IF;
    IF w IS DISTINCT FROM before THEN
        UPDATE relay.quota_window it SET size = w.size, epoch = w.epoch, ends = w.ends
        WHERE it.name = c.window_name;
    END IF;
END $$;

-- How much more a node gets: less and less of what is free, so that others find some.
CREATE FUNCTION relay.share_of(c relay.claim, free bigint, nodes bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN free < greatest(c.need, 1) THEN 0
    ELSE least(greatest(c.want, c.need), greatest(c.need, free / (2 * nodes), 1)) END
$$;

CREATE TYPE relay.granted AS (
    number bigint, epoch bigint, ceiling bigint, ends_in bigint, expires_in bigint, size bigint,
    free bigint, elsewhere bigint
);

-- The unused part of other nodes is asked for where it would help a request that waits.
CREATE FUNCTION relay.recall(g relay.granted, c relay.claim) RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify('relay_recall', c.window_name)
    WHERE c.need > g.free AND g.elsewhere > 0
$$;

-- Let a claim that was reported have more, and answer it. `extends`: it may have more. A request
-- that waits opens the window.
CREATE FUNCTION relay.grant_claim(
    c relay.claim, w relay.quota_window, now bigint, nodes bigint, extends boolean
) RETURNS relay.granted LANGUAGE plpgsql AS $$
DECLARE
    own relay.lease;
    others record;
    free bigint;
    share bigint;
BEGIN
    SELECT coalesce(sum(greatest(l.used, l.ceiling)), 0)::bigint AS total,
           coalesce(sum(greatest(0, l.ceiling - l.used)) FILTER (WHERE NOT l.is_lost), 0)::bigint
               AS unused
    INTO others FROM relay.lease l WHERE l.window_name = c.window_name AND l.name <> c.lease;
    SELECT * INTO own FROM relay.lease l WHERE l.window_name = c.window_name AND l.name = c.lease;
    free := w.size - others.total - coalesce(greatest(own.used, own.ceiling), 0);
    IF extends AND c.need > 0 AND w.ends = 0 THEN
        w.ends := now + w.per;
        UPDATE relay.quota_window it SET ends = w.ends WHERE it.name = w.name;
    END IF;
    IF extends AND w.ends <> 0 THEN
        share := relay.share_of(c, free, nodes);
        IF share > 0 OR own.name IS NULL OR own.number <> c.number THEN
            INSERT INTO relay.lease AS l
            VALUES (c.window_name, c.lease, c.number, 0, share, now + relay.lease_time(), false)
            ON CONFLICT (window_name, name) DO UPDATE
            SET number = excluded.number, ceiling = l.ceiling + share, expires = excluded.expires,
                is_lost = false
            RETURNING * INTO own;
        END IF;
        free := w.size - others.total - greatest(own.used, own.ceiling);
    END IF;
    RETURN (c.number, w.epoch, coalesce(own.ceiling, 0), greatest(0, w.ends - now), relay.lease_time(),
            w.size, greatest(0, free), others.unused)::relay.granted;
END $$;

-- Whether the request that waits for a claim can be admitted.
CREATE FUNCTION relay.can_supply(c relay.claim, w relay.quota_window) RETURNS boolean
LANGUAGE sql AS $$
    SELECT c.need <= 0 OR c.need <= (
        SELECT w.size - coalesce(sum(greatest(l.used, l.ceiling)), 0)
        FROM relay.lease l WHERE l.window_name = c.window_name)
$$;

-- Answer claims in their order. Those of one request stand together, under one number in
-- `requests`: if one of their windows cannot supply its need, none gives more. `at` is the moment,
-- else the server's clock once all windows are locked. `frozen`: nothing more is granted.
CREATE FUNCTION relay.answer_claims(
    requests int[], claims relay.claim[], nodes bigint, frozen boolean, at bigint DEFAULT NULL
) RETURNS SETOF relay.granted LANGUAGE plpgsql AS $$
DECLARE
    now bigint;
    windows relay.quota_window[];
    latest boolean[];
    reported record;
    granted relay.granted;
    supplied boolean := true;
    first int := 1;
BEGIN
    PERFORM relay.lock_windows(
        array_agg(c.window_name), array_agg(c.size), array_agg(c.per)) FROM unnest(claims) c;
    now := coalesce(at, relay.now_ms());
    FOR i IN 1 .. cardinality(claims) LOOP
        reported := relay.report_claim(claims[i], now);
        windows[i] := reported.w;
        latest[i] := reported.latest;
        supplied := supplied AND relay.can_supply(claims[i], windows[i]);
        CONTINUE WHEN requests[i + 1] = requests[i];
        FOR j IN first .. i LOOP
            granted := relay.grant_claim(
                claims[j], windows[j], now, nodes, supplied AND latest[j] AND NOT frozen);
            IF NOT supplied THEN
                PERFORM relay.recall(granted, claims[j]);
            END IF;
            RETURN NEXT granted;
        END LOOP;
        first := i + 1;
        supplied := true;
    END LOOP;
END $$;
