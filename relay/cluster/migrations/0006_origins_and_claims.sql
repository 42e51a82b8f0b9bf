-- needs: 1
-- Databases that have brought their rows, by their first account: none may bring them twice, under
-- another node's name or by an import.
CREATE TABLE relay.origin (
    account text COLLATE "C" PRIMARY KEY,
    node text NOT NULL,
    is_complete boolean NOT NULL,  -- an import, and all of its rows are here
    at bigint NOT NULL DEFAULT relay.now_ms()
);

-- The database with this first account, if its rows are here or on their way. Where the note is
-- missing, since the database came before there were notes or PostgreSQL was put back to an earlier
-- state, the account's row says so: no other database has an account with this id.
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
ALTER TABLE relay.replica ADD COLUMN is_import boolean NOT NULL DEFAULT false;

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

-- Acts are claimed by `claim_act` below.
DROP FUNCTION relay.claim_once(text, text, text);

-- A claim has the process that made it (`boot`). `is_done`: the act was done, and its rows are here.
-- A claim without a node is free: its act was not done, or its rows are here.
ALTER TABLE relay.claimed_act
    ADD COLUMN boot text NOT NULL DEFAULT '',
    ADD COLUMN is_done boolean NOT NULL DEFAULT false;
UPDATE relay.claimed_act SET is_done = true;
CREATE INDEX claimed_act_open ON relay.claimed_act (node) WHERE NOT is_done;

-- A node that an operator has declared gone: nothing of it is taken any more, so that others can do
-- its acts.
ALTER TABLE relay.replica ADD COLUMN is_gone boolean NOT NULL DEFAULT false;

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

-- As in 0004, but for a node that is gone.
CREATE OR REPLACE FUNCTION relay.join_replica(name text)
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

-- A node has not been heard of for ten minutes.
CREATE FUNCTION relay.is_silent(name text) RETURNS boolean LANGUAGE sql AS $$
    SELECT NOT EXISTS (SELECT FROM relay.node n
                       WHERE n.name = is_silent.name AND n.seen > relay.now_ms() - 600000)
$$;

-- Claim an act. `takes_over`: whether it may be that of a node that has been silent for long, since
-- its rows, should they come one day, count with these as one. `owner`: the node that has the act.
-- `is_new`: nobody had it before. `is_taken`: another node had it, and its rows are to be read first.
CREATE FUNCTION relay.claim_act(
    a_kind text, an_id text, name text, a_boot text, takes_over boolean
) RETURNS TABLE (owner text, is_new boolean, is_taken boolean) LANGUAGE plpgsql AS $$
DECLARE
    c relay.claimed_act;
BEGIN
    PERFORM relay.refuse_gone(name);
    INSERT INTO relay.claimed_act (kind, id, node, boot) VALUES (a_kind, an_id, name, a_boot)
    ON CONFLICT DO NOTHING;
    is_new := FOUND;
    SELECT * INTO c FROM relay.claimed_act o WHERE o.kind = a_kind AND o.id = an_id FOR UPDATE;
    owner := coalesce(c.node, ' ');  -- taken back at this moment
    is_taken := c.node = '' OR (c.node <> name AND takes_over
        AND c.at < relay.now_ms() - 600000 AND relay.is_silent(c.node));
    IF is_taken OR (c.node = name AND NOT is_new) THEN  -- or an earlier process of this node had it
        UPDATE relay.claimed_act o
        SET node = name, boot = a_boot, at = relay.now_ms(), is_done = false
        WHERE o.kind = a_kind AND o.id = an_id;
        owner := name;
    END IF;
    RETURN NEXT;
END $$;

-- All rows of a node's database are here. So acts that have ended were done, or are free, and what
-- its earlier processes claimed is free. One that hands over may be at an act still.
CREATE FUNCTION relay.settle_claims(
    name text, a_boot text, kinds text[], ids text[], done boolean[]
) RETURNS void LANGUAGE sql AS $$
    UPDATE relay.claimed_act c
    SET is_done = d.is_done, node = CASE WHEN d.is_done THEN name ELSE '' END
    FROM unnest(kinds, ids, done) d (kind, id, is_done)
    WHERE c.kind = d.kind COLLATE "C" AND c.id = d.id COLLATE "C" AND c.node = name
      AND NOT c.is_done;
    UPDATE relay.claimed_act c SET node = ''
    WHERE c.node = name AND NOT c.is_done AND c.boot <> a_boot AND c.at < relay.now_ms() - 60000
$$;

-- An operator declares a node gone. Returns the number of acts that others may do now, if they were
-- not done; NULL: there is no such node, or it is alive, or gone already. Where it has shared
-- nothing, the rows of its database may come with another node.
CREATE FUNCTION relay.forget_replica(name text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    freed bigint;
BEGIN
    PERFORM FROM relay.replication r FOR UPDATE;  -- none of its rows is on its way
    PERFORM FROM relay.node n WHERE n.name = forget_replica.name AND n.seen > relay.now_ms() - 15000;
    IF FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE relay.replica r SET is_gone = true, seen = 9223372036854775807
    WHERE r.node = name AND NOT r.is_gone AND NOT r.is_import;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    DELETE FROM relay.origin o USING relay.replica r
    WHERE o.node = name AND r.node = name AND r.entry = 0;
    UPDATE relay.claimed_act c SET node = '', is_done = false
    WHERE c.node = name AND NOT c.is_done;
    GET DIAGNOSTICS freed = ROW_COUNT;
    RETURN freed;
END $$;

-- Acts that nobody may do: their nodes are silent, and it is not known whether they did them.
CREATE FUNCTION relay.blocked_acts() RETURNS TABLE (kind text, id text, node text, at bigint)
LANGUAGE sql AS $$
    SELECT c.kind, c.id, c.node, c.at FROM relay.claimed_act c
    WHERE NOT c.is_done AND c.node <> '' AND c.at < relay.now_ms() - 600000
      AND relay.is_silent(c.node)
    ORDER BY c.at LIMIT 100
$$;

-- Numbers without a gap, such as those of invoices: the same subject gets the same number again.
CREATE TABLE relay.given_number (
    series text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    subject text COLLATE "C" NOT NULL,
    PRIMARY KEY (series, number),
    UNIQUE (series, subject)
);

-- `above`: the greatest number that the caller knows.
CREATE FUNCTION relay.give_number(a_series text, a_subject text, above bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    given bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('relay number ' || a_series, 21));
    SELECT g.number INTO given FROM relay.given_number g
    WHERE g.series = a_series AND g.subject = a_subject;
    IF given IS NULL THEN
        SELECT greatest(above, coalesce(max(g.number), 0)) + 1 INTO given
        FROM relay.given_number g WHERE g.series = a_series;
        INSERT INTO relay.given_number VALUES (a_series, given, a_subject);
    END IF;
    RETURN given;
END $$;
