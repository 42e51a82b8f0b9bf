-- needs: 1
-- When no node needs a row any more, so that it is deleted.

-- Windows that ended a day ago, old changes, and nodes that are gone. A window that waits with a
-- bonus stays, and so does a node that shares rows: where it is missing, the node has left; else it
-- was lost. Of calls at once, one works. Returns the number of windows.
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
        WHERE o.ends < now - day AND o.bonus_windows = 0 AND NOT EXISTS (
            SELECT FROM relay.lease l WHERE l.window_name = o.name AND l.expires > now - day)
        ORDER BY o.name LIMIT 5000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    DELETE FROM relay.node n
    WHERE n.seen < now - day AND NOT EXISTS (SELECT FROM relay.replica r WHERE r.node = n.name);
    DELETE FROM relay.adjustment a WHERE a.at < now - 30 * day;
    DELETE FROM relay.change c
    WHERE c.at < now - day AND c.seq < (SELECT max(o.seq) FROM relay.change o);
    RETURN deleted;
END $$;

-- Deletions that all nodes have seen, requests that are too old to be kept, and claims on acts that
-- all have seen long ago. Of calls at once, one works. Returns the number of rows.
CREATE FUNCTION relay.tidy_rows(keep_requests_ms bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    day CONSTANT bigint := 86400000;
    seen_by_all bigint := (SELECT coalesce(min(r.seen), 0) FROM relay.replica r);
    deleted bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('relay.tidy_rows')) THEN
        RETURN 0;
    END IF;
    DELETE FROM relay.replicated_row r WHERE (r.tbl, r.pk) IN (
        SELECT o.tbl, o.pk FROM relay.replicated_row o
        WHERE o.seq <= seen_by_all AND (
            o.image IS NULL AND o.at < relay.now_ms() - day
            OR o.tbl = 'usage' AND o.at < relay.now_ms() - keep_requests_ms)
        ORDER BY o.seq LIMIT 5000);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    DELETE FROM relay.claimed_act c WHERE c.at < relay.now_ms() - 400 * day;
    RETURN deleted;
END $$;

-- States of upstreams and moves that are over. It waits for no row that another transaction has, so
-- that it can be part of no deadlock; the next time will do for such a row.
CREATE FUNCTION relay.tidy_upstreams() RETURNS void LANGUAGE sql AS $$
    DELETE FROM relay.upstream_state s WHERE (s.upstream, s.scope, s.about, s.caller) IN (
        SELECT o.upstream, o.scope, o.about, o.caller FROM relay.upstream_state o
        WHERE o.until <= relay.now_ms() FOR UPDATE SKIP LOCKED);
    DELETE FROM relay.upstream_guess g WHERE (g.upstream, g.scope, g.about, g.caller, g.node) IN (
        SELECT o.upstream, o.scope, o.about, o.caller, o.node FROM relay.upstream_guess o
        WHERE o.until <= relay.now_ms() FOR UPDATE SKIP LOCKED);
    DELETE FROM relay.session_move s WHERE (s.caller, s.key) IN (
        SELECT o.caller, o.key FROM relay.session_move o
        WHERE o.until <= relay.now_ms() FOR UPDATE SKIP LOCKED);
$$;
