-- The public status: answers by model and day, incidents beside announcements.

-- How requests of a model were answered on a day (UTC) of admission. Sums stay when requests are
-- pruned. `within_ms`: how long the first octet took, rounded up; 0: the answer failed, and it was
-- not the caller's fault.
CREATE TABLE answer_day (
    day       INTEGER NOT NULL,  -- its first second
    model     TEXT    NOT NULL,  -- as in usage
    within_ms INTEGER NOT NULL,
    requests  INTEGER NOT NULL,
    PRIMARY KEY (day, model, within_ms)
) STRICT, WITHOUT ROWID;

-- Requests as `answer_day` counts them. One that says nothing about its model has a null: its
-- caller left, or it was at fault. The steps are at most a quarter of a time above 100 ms.
CREATE VIEW answer AS
SELECT number, CAST(time AS INTEGER) / 86400 * 86400 AS day, time, model,
    CASE
        WHEN outcome = 'whole' AND status < 400 THEN CASE
            WHEN ms < 100 THEN ms / 10 * 10 + 10
            WHEN ms < 500 THEN ms / 25 * 25 + 25
            WHEN ms < 1000 THEN ms / 50 * 50 + 50
            WHEN ms < 2000 THEN ms / 100 * 100 + 100
            WHEN ms < 5000 THEN ms / 250 * 250 + 250
            WHEN ms < 20000 THEN ms / 1000 * 1000 + 1000
            WHEN ms < 120000 THEN ms / 10000 * 10000 + 10000
            ELSE 180000
        END
        WHEN outcome = 'caller left' THEN NULL
        WHEN status >= 400 AND status < 500 AND status <> 429
            AND outcome NOT LIKE 'cut%' AND outcome NOT LIKE 'failed%' THEN NULL
        ELSE 0
    END AS within_ms
FROM (SELECT *, coalesce(ttfb_us, duration_us, 0) / 1000 AS ms FROM usage);

INSERT INTO answer_day
SELECT day, model, within_ms, count(*) FROM answer
WHERE within_ms IS NOT NULL AND number <= (SELECT upto FROM summed) GROUP BY 1, 2, 3;

-- An incident is shown like maintenance, and stays on the status page once it is resolved.
ALTER TABLE announcement RENAME TO announcement_before;

CREATE TABLE announcement (
    id          TEXT NOT NULL PRIMARY KEY,
    kind        TEXT NOT NULL CHECK (kind IN ('notice', 'maintenance', 'incident')),
    text        TEXT NOT NULL,
    text_zh     TEXT NOT NULL DEFAULT '',
    starts_at   REAL NOT NULL,
    ends_at     REAL,
    created_at  REAL NOT NULL,
    title       TEXT NOT NULL DEFAULT '',
    title_zh    TEXT NOT NULL DEFAULT '',
    resolved_at REAL
) STRICT;

INSERT INTO announcement
SELECT id, kind, text, text_zh, starts_at, ends_at, created_at, '', '', NULL
FROM announcement_before;

DROP TABLE announcement_before;
