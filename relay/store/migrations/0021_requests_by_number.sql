-- Requests are noted for the other nodes when they are sent, by their numbers, and not one by one
-- when they are written. `noted`: the last number in `usage` that was looked at.
ALTER TABLE replica ADD COLUMN noted INTEGER NOT NULL DEFAULT 0;

-- The numbers above it that requests of other nodes have.
CREATE TABLE usage_foreign (
    first INTEGER NOT NULL PRIMARY KEY,
    last  INTEGER NOT NULL
) STRICT;
