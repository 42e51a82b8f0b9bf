-- Requests that the relay refused before their admission, which have no row in `usage`: counted by
-- minute, key and reason, with the last of them.
CREATE TABLE refusal (
    user_id TEXT    NOT NULL,
    minute  INTEGER NOT NULL,  -- its first second
    key_id  TEXT    NOT NULL,
    reason  TEXT    NOT NULL,  -- the error's code, or its limit
    number  INTEGER NOT NULL,
    status  INTEGER NOT NULL,
    model   TEXT    NOT NULL,
    words   TEXT    NOT NULL,  -- of the answer
    last_id TEXT    NOT NULL,
    PRIMARY KEY (user_id, minute, key_id, reason)
) STRICT, WITHOUT ROWID;
