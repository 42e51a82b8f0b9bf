-- needs: 1
-- The state of upstreams that nodes share: outages, clears by an operator, and conversations that
-- had to move to another upstream.

-- The outages that hold for all nodes. `upstream`: name, address and a digest of the credential.
-- `scope`: as the nodes have it, or 'clear', which makes all before it void. `about`: the model of a
-- scope that is a model's. `caller`: the account that it holds for, '' for all.
CREATE TABLE relay.upstream_state (
    upstream text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    about text COLLATE "C" NOT NULL,
    caller text COLLATE "C" NOT NULL,
    until bigint NOT NULL,
    stated boolean NOT NULL,  -- by the upstream; else two nodes have guessed it
    quota boolean NOT NULL,
    failing boolean NOT NULL,
    model text NOT NULL,      -- for a probe
    reason text NOT NULL,
    origin text NOT NULL,     -- the process that reported it
    since bigint NOT NULL,    -- when it was found
    seq bigint NOT NULL UNIQUE,
    PRIMARY KEY (upstream, scope, about, caller)
);

-- The guesses of single nodes.
CREATE TABLE relay.upstream_guess (
    upstream text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    about text COLLATE "C" NOT NULL,
    caller text COLLATE "C" NOT NULL,
    node text COLLATE "C" NOT NULL,
    until bigint NOT NULL,
    PRIMARY KEY (upstream, scope, about, caller, node)
);

-- Reports of a node, in their order. `left` and `age`: milliseconds. `kind`: an 'outage'; a
-- 'withdrawal' of a guess, which an answer has disproved; or a 'clear'. Each state that changes is a
-- change of kind 'upstream', whose number it gets.
CREATE FUNCTION relay.report_upstreams(a_node text, an_origin text, reports jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now bigint;
    r record;
    old relay.upstream_state;
    other record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('relay.upstream_state'));
    now := relay.now_ms();
    FOR r IN SELECT it.*, now + it."left" AS until
             FROM jsonb_to_recordset(reports) it (
                 kind text, upstream text, scope text, about text, caller text, "left" bigint,
                 stated boolean, quota boolean, failing boolean, model text, reason text,
                 age bigint) LOOP
        IF r.kind = 'clear' THEN
            DELETE FROM relay.upstream_state s WHERE s.upstream = r.upstream;
            DELETE FROM relay.upstream_guess g WHERE g.upstream = r.upstream;
        ELSIF r.kind = 'withdrawal' THEN
            DELETE FROM relay.upstream_guess g
            WHERE (g.upstream, g.scope, g.about, g.caller, g.node)
                = (r.upstream, r.scope, r.about, r.caller, a_node);
            CONTINUE;
        ELSIF NOT r.stated THEN
            INSERT INTO relay.upstream_guess
            VALUES (r.upstream, r.scope, r.about, r.caller, a_node, r.until)
            ON CONFLICT (upstream, scope, about, caller, node)
            DO UPDATE SET until = excluded.until;
            -- The same of two accounts, on two nodes, holds for all accounts, as it does on one.
            SELECT g.caller, g.until INTO other
            FROM relay.upstream_guess g
            WHERE (g.upstream, g.scope, g.about) = (r.upstream, r.scope, r.about)
                AND (g.caller = r.caller OR g.caller <> '' AND r.caller <> '')
                AND g.node <> a_node AND g.until > now
            ORDER BY g.caller = r.caller, g.until DESC LIMIT 1;
            CONTINUE WHEN NOT FOUND;
            r.until := least(r.until, other.until);
            IF other.caller <> r.caller THEN
                r.caller := '';
            END IF;
        END IF;
        SELECT * INTO old FROM relay.upstream_state s
        WHERE (s.upstream, s.scope, s.about, s.caller) = (r.upstream, r.scope, r.about, r.caller)
            AND s.until > now;
        -- A statement prevails over a guess, a longer one over a shorter one.
        CONTINUE WHEN FOUND AND (old.stated, old.until) >= (r.stated, r.until);
        INSERT INTO relay.upstream_state
        VALUES (r.upstream, r.scope, r.about, r.caller, r.until, r.stated, r.quota, r.failing,
                r.model, r.reason, an_origin, now - r.age,
                relay.note_change('upstream', r.upstream))
        ON CONFLICT (upstream, scope, about, caller) DO UPDATE
        SET until = excluded.until, stated = excluded.stated, quota = excluded.quota,
            failing = excluded.failing, model = excluded.model, reason = excluded.reason,
            origin = excluded.origin, since = excluded.since, seq = excluded.seq;
    END LOOP;
END $$;

-- Conversations that are elsewhere than their hash says, or have just come back. `since`: the
-- latest request.
CREATE TABLE relay.session_move (
    caller text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    upstream text NOT NULL,
    family text NOT NULL,
    mixed boolean NOT NULL,
    moved boolean NOT NULL,
    until bigint NOT NULL,
    since bigint NOT NULL,
    origin text NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (caller, key)
);
CREATE INDEX session_move_by_seq ON relay.session_move (seq);

-- Note moves of a process; the later request decides. All get the number of one change of kind
-- 'session'.
CREATE FUNCTION relay.move_sessions(an_origin text, moves jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    number bigint := relay.note_change('session', '');
    now bigint := relay.now_ms();
BEGIN
    INSERT INTO relay.session_move AS s
    SELECT it.caller, decode(it.key, 'hex'), it.upstream, it.family, it.mixed, it.moved,
           now + it."left", now - it.age, an_origin, number
    FROM jsonb_to_recordset(moves) it (
        caller text, key text, upstream text, family text, mixed boolean, moved boolean,
        "left" bigint, age bigint)
    ON CONFLICT (caller, key) DO UPDATE
    SET upstream = excluded.upstream, family = excluded.family, mixed = excluded.mixed,
        moved = excluded.moved, until = excluded.until, since = excluded.since,
        origin = excluded.origin, seq = excluded.seq
    WHERE excluded.since >= s.since OR s.until <= now;
END $$;
