-- needs: 1
-- A name belongs to one relay at a time: two of one name would each take the other's rows for their
-- own. `place`: the host and the database of the relay that has it, empty once that has stopped.
ALTER TABLE relay.replica ADD COLUMN place text NOT NULL DEFAULT '';

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

-- As in 0004. A relay that hands over leaves its name to the next one, which then takes it here.
DROP FUNCTION relay.note_seen(text, bigint);
CREATE FUNCTION relay.note_seen(name text, seen bigint, a_place text)
RETURNS bigint LANGUAGE sql AS $$
    UPDATE relay.replica r
    SET seen = note_seen.seen, at = relay.now_ms(),
        place = CASE WHEN r.place = '' THEN a_place ELSE r.place END
    WHERE r.node = name
    RETURNING (SELECT o.seq FROM relay.replication o)
$$;

-- The relay stops: its name is free. `joined`: its database is the node's. One that was refused
-- leaves no trace, since deleted rows are kept for all that have yet to read them.
CREATE FUNCTION relay.leave_name(name text, a_place text, joined boolean)
RETURNS void LANGUAGE sql AS $$
    DELETE FROM relay.replica r
    WHERE r.node = name AND r.place = a_place AND NOT joined AND r.entry = 0;
    UPDATE relay.replica r SET place = '' WHERE r.node = name AND r.place = a_place
$$;
