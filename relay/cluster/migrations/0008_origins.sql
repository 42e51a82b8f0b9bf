-- needs: 1
-- Databases that bring their rows: none may bring them twice, under another node's name or by an
-- import.

-- Those that have brought their rows, by their first account.
CREATE TABLE relay.origin (
    account text COLLATE "C" PRIMARY KEY,
    node text NOT NULL,
    is_complete boolean NOT NULL,  -- an import, and all of its rows are here
    at bigint NOT NULL DEFAULT relay.now_ms()
);

-- The database with this first account, if its rows are here or on their way. Where the note is
-- missing, since PostgreSQL was put back to an earlier state, the account's row says so: no other
-- database has an account with this id.
CREATE FUNCTION relay.find_origin(an_account text)
RETURNS TABLE (node text, is_complete boolean, at bigint) LANGUAGE sql AS $$
    SELECT o.node, o.is_complete, o.at FROM relay.origin o WHERE o.account = an_account
    UNION ALL
    SELECT r.node, false, r.at FROM relay.replicated_row r
    WHERE r.tbl = 'users' AND r.pk = json_build_array(an_account)::text
      AND NOT EXISTS (SELECT FROM relay.origin o WHERE o.account = an_account)
$$;

-- Note that a database brings its rows, or has brought all of them. Returns the node that brings
-- them, which may be another one that was first.
CREATE FUNCTION relay.note_origin(an_account text, a_node text, complete boolean)
RETURNS text LANGUAGE sql AS $$
    INSERT INTO relay.origin AS o (account, node, is_complete)
    VALUES (an_account, coalesce((SELECT f.node FROM relay.find_origin(an_account) f), a_node),
            complete)
    ON CONFLICT (account) DO UPDATE
    SET is_complete = o.is_complete OR excluded.is_complete AND excluded.node = o.node
    RETURNING o.node
$$;

-- An import begins, or goes on. It reads nothing later, so no row waits for it, however it ends. Its
-- number stays taken, since its entries have it in their ids.
CREATE FUNCTION relay.join_import(name text)
RETURNS TABLE (number int, entry bigint, entry_seq bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM relay.join_replica(name);
    UPDATE relay.replica r SET seen = 9223372036854775807, is_import = true WHERE r.node = name;
END $$;

-- An import has ended. One that shared nothing leaves no trace.
CREATE FUNCTION relay.end_import(name text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM relay.replica r WHERE r.node = name AND r.entry = 0
$$;
