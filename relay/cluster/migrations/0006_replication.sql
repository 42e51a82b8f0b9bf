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

-- Whether a row is there. A function, so that it is looked up by its key: as part of a query, the
-- planner may read the whole table for it.
CREATE FUNCTION relay.has_row(a_tbl text, a_pk text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (SELECT FROM relay.replicated_row r
                   WHERE r.tbl = a_tbl AND r.pk = a_pk AND r.image IS NOT NULL);
END $$;

-- Share rows of a node: the entries of its outbox from `first` up to `upto`. `shared`: a list of
-- [table, key, operation, image or null, length of the image]. Returns the number of the last row;
-- NULL: some of these entries are here already, and the node has to ask how far.
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
-- A relay that hands over leaves its name to the next one, which then takes it here.
CREATE FUNCTION relay.note_seen(name text, seen bigint, a_place text)
RETURNS bigint LANGUAGE sql AS $$
    UPDATE relay.replica r
    SET seen = note_seen.seen, at = relay.now_ms(),
        place = CASE WHEN r.place = '' THEN a_place ELSE r.place END
    WHERE r.node = name
    RETURNING (SELECT o.seq FROM relay.replication o)
$$;
