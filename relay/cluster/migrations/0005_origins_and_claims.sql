-- needs: 1
-- Databases that have brought their rows, by their first account: none may bring them twice, under
-- another node's name or by an import.
CREATE TABLE relay.origin (
    account text COLLATE "C" PRIMARY KEY,
    node text NOT NULL,
    is_complete boolean NOT NULL,  -- all rows are here; an import may end before that
    at bigint NOT NULL DEFAULT relay.now_ms()
);

CREATE FUNCTION relay.note_origin(an_account text, name text, complete boolean)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO relay.origin AS o (account, node, is_complete) VALUES (an_account, name, complete)
    ON CONFLICT (account) DO UPDATE SET is_complete = o.is_complete OR excluded.is_complete
$$;

-- An import has ended. Its number stays taken, since its entries have it in their ids; it reads
-- nothing, so no row waits for it. One that shared nothing leaves no trace.
CREATE FUNCTION relay.end_import(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM relay.replica r WHERE r.node = name AND r.entry = 0;
    UPDATE relay.replica r SET seen = 9223372036854775807 WHERE r.node = name;
END $$;
