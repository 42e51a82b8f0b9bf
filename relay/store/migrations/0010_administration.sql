-- What each account used by calendar month (UTC), so that a list of all accounts can be in that
-- order at once. Follows `usage_hour`, which gets few rows at a time.
CREATE TABLE usage_month (
    month      INTEGER NOT NULL,  -- its first second
    user_id    TEXT    NOT NULL,
    requests   INTEGER NOT NULL,
    tokens     INTEGER NOT NULL,
    cost_micro INTEGER NOT NULL,
    PRIMARY KEY (month, user_id)
) STRICT, WITHOUT ROWID;

INSERT INTO usage_month
SELECT CAST(strftime('%s', hour, 'unixepoch', 'start of month') AS INTEGER), user_id,
    sum(requests), sum(input + output + cache_read + cache_write + estimated), sum(cost_micro)
FROM usage_hour GROUP BY 1, 2;

CREATE TRIGGER usage_month_begins AFTER INSERT ON usage_hour BEGIN
    INSERT INTO usage_month VALUES (
        CAST(strftime('%s', NEW.hour, 'unixepoch', 'start of month') AS INTEGER), NEW.user_id,
        NEW.requests,
        NEW.input + NEW.output + NEW.cache_read + NEW.cache_write + NEW.estimated,
        NEW.cost_micro
    )
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
        tokens = tokens + excluded.tokens, cost_micro = cost_micro + excluded.cost_micro;
END;

CREATE TRIGGER usage_month_grows AFTER UPDATE ON usage_hour BEGIN
    UPDATE usage_month SET
        requests = requests + NEW.requests - OLD.requests,
        tokens = tokens
            + (NEW.input + NEW.output + NEW.cache_read + NEW.cache_write + NEW.estimated)
            - (OLD.input + OLD.output + OLD.cache_read + OLD.cache_write + OLD.estimated),
        cost_micro = cost_micro + NEW.cost_micro - OLD.cost_micro
    WHERE month = CAST(strftime('%s', NEW.hour, 'unixepoch', 'start of month') AS INTEGER)
        AND user_id = NEW.user_id;
END;
