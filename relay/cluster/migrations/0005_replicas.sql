-- needs: 1
-- The nodes that share rows: their names and numbers, and how far each is. A name belongs to one
-- relay at a time: two of one name would each take the other's rows for their own.

CREATE TABLE relay.replica (
    node text COLLATE "C" PRIMARY KEY,
    number int NOT NULL UNIQUE CHECK (number BETWEEN 1 AND 1023),
    entry bigint NOT NULL DEFAULT 0,      -- the last of the node's outbox that is here
    entry_seq bigint NOT NULL DEFAULT 0,  -- and the number of the last row that came with it
    seen bigint NOT NULL DEFAULT 0,
    at bigint NOT NULL DEFAULT relay.now_ms(),
    is_import boolean NOT NULL DEFAULT false,
    -- By an operator's word: nothing of the node is taken any more, so that others can do its acts.
    is_gone boolean NOT NULL DEFAULT false,
    -- The host and the database of the relay that has the name; empty once that has stopped.
    place text NOT NULL DEFAULT ''
);

CREATE FUNCTION relay.refuse_gone(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM relay.replica r WHERE r.node = name AND r.is_gone) THEN
        RAISE EXCEPTION 'node % was declared gone: begin with an empty database and another name '
            '(ledger.node)', name;
    END IF;
END $$;

CREATE FUNCTION relay.refuse_gone_replica() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM relay.refuse_gone(OLD.node);
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_gone BEFORE UPDATE ON relay.replica FOR EACH ROW
    WHEN (OLD.is_gone) EXECUTE FUNCTION relay.refuse_gone_replica();

-- A node begins, for the first time or again. Returns its number and how far it is.
CREATE FUNCTION relay.join_replica(name text)
RETURNS TABLE (number int, entry bigint, entry_seq bigint) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM relay.refuse_gone(name);
    PERFORM pg_advisory_xact_lock(hashtext('relay.replica'));
    INSERT INTO relay.replica AS r (node, number)
    SELECT name, min(n) FROM generate_series(1, 1023) n
    WHERE NOT EXISTS (SELECT FROM relay.replica o WHERE o.number = n)
    ON CONFLICT (node) DO NOTHING;
    RETURN QUERY SELECT r.number, r.entry, r.entry_seq FROM relay.replica r WHERE r.node = name;
END $$;

-- As `join_replica`. An error: another relay of this name has been heard of in the last 15 s.
CREATE FUNCTION relay.join_node(name text, a_place text)
RETURNS TABLE (number int, entry bigint, entry_seq bigint) LANGUAGE plpgsql AS $$
DECLARE
    r relay.replica;
BEGIN
    RETURN QUERY SELECT * FROM relay.join_replica(name);  -- one at a time
    SELECT * INTO r FROM relay.replica o WHERE o.node = name;
    IF r.place NOT IN ('', a_place) AND r.at > relay.now_ms() - 15000 THEN
        RAISE EXCEPTION 'node % is the relay of %, which was heard of % s ago: give this one a name '
            'of its own (ledger.node), or stop the other', name, r.place,
            greatest(0, relay.now_ms() - r.at) / 1000;
    END IF;
    UPDATE relay.replica o SET place = a_place, at = relay.now_ms() WHERE o.node = name;
END $$;

-- The relay stops: its name is free. `joined`: its database is the node's. One that was refused
-- leaves no trace, since deleted rows are kept for all that have yet to read them.
CREATE FUNCTION relay.leave_name(name text, a_place text, joined boolean)
RETURNS void LANGUAGE sql AS $$
    DELETE FROM relay.replica r
    WHERE r.node = name AND r.place = a_place AND NOT joined AND r.entry = 0;
    UPDATE relay.replica r SET place = '' WHERE r.node = name AND r.place = a_place
$$;
