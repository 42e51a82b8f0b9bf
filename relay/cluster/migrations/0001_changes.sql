-- needs: 1
-- The server's clock, and the order of changes of what nodes keep in memory. In all files, moments
-- are epoch milliseconds of this clock.

CREATE FUNCTION relay.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- Numbered in the order of the commits, so that a reader who has seen a number has seen all before
-- it.
CREATE TABLE relay.change (
    seq bigint PRIMARY KEY,
    kind text NOT NULL,
    id text NOT NULL,
    at bigint NOT NULL DEFAULT relay.now_ms()
);

CREATE FUNCTION relay.note_change(kind text, id text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('relay.change'));
    INSERT INTO relay.change (seq, kind, id)
    VALUES ((SELECT coalesce(max(c.seq), 0) + 1 FROM relay.change c), note_change.kind,
            note_change.id)
    RETURNING seq INTO number;
    PERFORM pg_notify('relay_change', number::text);
    RETURN number;
END $$;
