-- needs: 1
-- Rows that all nodes have in files of their own, on their way from one node to the others.

-- The number of the last row. One row: its lock gives numbers in the order of the commits, so that a
-- reader who has seen a number has seen all before it.
CREATE TABLE relay.replication (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq bigint NOT NULL DEFAULT 0,
    incarnation bigint NOT NULL DEFAULT 0
);
INSERT INTO relay.replication DEFAULT VALUES;

CREATE TABLE relay.replica (
    node text COLLATE "C" PRIMARY KEY,
    number int NOT NULL UNIQUE CHECK (number BETWEEN 1 AND 1023),
    entry bigint NOT NULL DEFAULT 0,      -- the last of the node's outbox that is here
    entry_seq bigint NOT NULL DEFAULT 0,  -- and the number of the last row that came with it
    seen bigint NOT NULL DEFAULT 0,
    at bigint NOT NULL DEFAULT relay.now_ms()
);

-- The last state of each row. A new node, or one that was away for long, reads what it lacks here,
-- in the same way as the others.
CREATE TABLE relay.replicated_row (
    tbl text COLLATE "C" NOT NULL,
    pk text COLLATE "C" NOT NULL,
    seq bigint NOT NULL UNIQUE,
    node text NOT NULL,
    op text NOT NULL,
    image jsonb,            -- null: the row is gone
    octets bigint NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (tbl, pk)
);

-- Claims on acts that may happen once.
CREATE TABLE relay.claimed_act (
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    node text NOT NULL,
    at bigint NOT NULL DEFAULT relay.now_ms(),
    PRIMARY KEY (kind, id)
);
CREATE INDEX claimed_act_by_age ON relay.claimed_act (at);

-- A node begins, for the first time or again. Returns its number and how far it is.
CREATE FUNCTION relay.join_replica(name text)
RETURNS TABLE (number int, entry bigint, entry_seq bigint) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('relay.replica'));
    INSERT INTO relay.replica AS r (node, number)
    SELECT name, min(n) FROM generate_series(1, 1023) n
    WHERE NOT EXISTS (SELECT FROM relay.replica o WHERE o.number = n)
    ON CONFLICT (node) DO NOTHING;
    RETURN QUERY SELECT r.number, r.entry, r.entry_seq FROM relay.replica r WHERE r.node = name;
END $$;

-- Whether a row is there. A function, so that it is looked up by its key: as part of a query, the
-- planner may read the whole table for it.
CREATE FUNCTION relay.has_row(a_tbl text, a_pk text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (SELECT FROM relay.replicated_row r
                   WHERE r.tbl = a_tbl AND r.pk = a_pk AND r.image IS NOT NULL);
END $$;

-- Share rows of a node: the entries of its outbox from `first` up to `upto`. `shared`: a list of
-- [table, key, operation, image or null, length of the image]. Returns the number of the last row; NULL: some of these entries are here already, and the node has to ask how far.
CREATE FUNCTION relay.share_rows(
    name text, first bigint, upto bigint, shared jsonb, adds_only text[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    engine relay.engine := relay.present_engine();
    moment bigint := relay.now_ms();
    last bigint;
BEGIN
    SELECT r.seq INTO last FROM relay.replication r FOR UPDATE;
    PERFORM FROM relay.replica r WHERE r.node = name AND r.entry < first FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- A start of the server may lack the last commits: their numbers are not given again.
    last := last + CASE WHEN EXISTS (
        SELECT FROM relay.replication r WHERE r.incarnation <> engine.incarnation)
        THEN 4294967296 ELSE 0 END;
    INSERT INTO relay.replicated_row AS r (tbl, pk, seq, node, op, image, octets, at)
    SELECT e.one ->> 0, e.one ->> 1, last + e.place, name, e.one ->> 2,
           nullif(e.one -> 3, 'null'), (e.one ->> 4)::bigint, moment
    FROM jsonb_array_elements(shared) WITH ORDINALITY e (one, place)
    -- A change of a row that was deleted meanwhile is void.
    WHERE CASE e.one ->> 2 WHEN 'update' THEN relay.has_row(e.one ->> 0, e.one ->> 1)
                           ELSE true END
    ON CONFLICT (tbl, pk) DO UPDATE SET
        seq = excluded.seq, node = excluded.node, op = excluded.op, at = excluded.at,
        image = CASE excluded.op WHEN 'update' THEN r.image || excluded.image
                                 ELSE excluded.image END,
        octets = CASE excluded.op WHEN 'update' THEN greatest(r.octets, excluded.octets)
                                  ELSE excluded.octets END
    WHERE (r.image IS NOT NULL OR excluded.op = 'insert') AND r.tbl <> ALL (adds_only);
    last := last + jsonb_array_length(shared);
    UPDATE relay.replication SET seq = last, incarnation = engine.incarnation;
    UPDATE relay.replica r SET entry = upto, entry_seq = last WHERE r.node = name;
    PERFORM pg_notify('relay_row', last::text);
    RETURN last;
END $$;

-- A node has all rows up to `seen`. Returns the number of the last row; NULL: the node is unknown.
CREATE FUNCTION relay.note_seen(name text, seen bigint) RETURNS bigint LANGUAGE sql AS $$
    UPDATE relay.replica r SET seen = note_seen.seen, at = relay.now_ms() WHERE r.node = name
    RETURNING (SELECT o.seq FROM relay.replication o)
$$;

-- Claim an act. `owner`: the node that has it, which is the one that asks or the one that was first.
-- `is_new`: nobody had it before.
CREATE FUNCTION relay.claim_once(a_kind text, an_id text, name text)
RETURNS TABLE (owner text, is_new boolean) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO relay.claimed_act (kind, id, node) VALUES (a_kind, an_id, name) ON CONFLICT DO NOTHING;
    is_new := FOUND;
    SELECT c.node INTO owner FROM relay.claimed_act c WHERE c.kind = a_kind AND c.id = an_id;
    owner := coalesce(owner, '');  -- taken back at this moment
    RETURN NEXT;
END $$;

-- Delete what no node needs: deletions that all have seen, requests that are too old to be kept,
-- claims on acts that all have seen long ago. Of calls at once, one works.
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
