-- needs: 1
-- Acts that may happen once: which node may do one, and what becomes of those of a node that is
-- silent or gone. And numbers that are given once.

-- A claim without a node is free: its act was not done, or its rows are here.
CREATE TABLE relay.claimed_act (
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    node text NOT NULL,
    at bigint NOT NULL DEFAULT relay.now_ms(),
    boot text NOT NULL DEFAULT '',           -- of the process that claims
    is_done boolean NOT NULL DEFAULT false,  -- the act was done, and its rows are here
    PRIMARY KEY (kind, id)
);
CREATE INDEX claimed_act_by_age ON relay.claimed_act (at);
CREATE INDEX claimed_act_open ON relay.claimed_act (node) WHERE NOT is_done;

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
