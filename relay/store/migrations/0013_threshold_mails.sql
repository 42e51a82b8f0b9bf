-- Mails to people when a share of a window is used, or when the balance falls below an amount.

CREATE TABLE threshold_choice (
    user_id       TEXT NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    shares        TEXT NOT NULL,  -- JSON: percentages of a window
    balance_micro INTEGER,        -- null: no mail about the balance
    language      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The mails that went. A window is known by its end, so the next one gives a mail again. A row about
-- the balance stays until the balance is above the threshold once more.
CREATE TABLE threshold_mail (
    user_id   TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    about     TEXT    NOT NULL,  -- scope/owner/kind/seconds of a limit, or balance
    threshold INTEGER NOT NULL,  -- percent, or micro-dollars
    until     INTEGER NOT NULL,  -- milliseconds; 0: about the balance
    PRIMARY KEY (user_id, about, threshold)
) STRICT, WITHOUT ROWID;
