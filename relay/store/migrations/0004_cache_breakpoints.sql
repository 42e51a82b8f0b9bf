-- Whether requests of a key get marks for the prompt cache where their caller has set none. Its
-- plan has a say in that, too.
ALTER TABLE keys ADD COLUMN cache_breakpoints INTEGER NOT NULL DEFAULT 1
    CHECK (cache_breakpoints IN (0, 1));
