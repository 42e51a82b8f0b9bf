-- Whether requests with a key get cache breakpoints if they have none. The plan can also turn that
-- off.
ALTER TABLE keys ADD COLUMN cache_breakpoints INTEGER NOT NULL DEFAULT 1
    CHECK (cache_breakpoints IN (0, 1));
