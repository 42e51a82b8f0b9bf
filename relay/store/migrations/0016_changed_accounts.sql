-- Whose keys, credit or limits changed, and the revision since when: a running server reads those
-- accounts again, and no others. An account has one row.
CREATE TABLE changed (
    user_id TEXT    NOT NULL PRIMARY KEY,
    number  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX changed_by_number ON changed (number);

DROP TRIGGER users_insert_is_told;
DROP TRIGGER users_update_is_told;
DROP TRIGGER users_delete_is_told;
DROP TRIGGER keys_insert_is_told;
DROP TRIGGER keys_update_is_told;
DROP TRIGGER keys_delete_is_told;
DROP TRIGGER credit_is_told;
DROP TRIGGER spend_limit_insert_is_noticed;
DROP TRIGGER spend_limit_update_is_noticed;
DROP TRIGGER spend_limit_delete_is_noticed;

CREATE TRIGGER users_insert_is_noticed AFTER INSERT ON users BEGIN
    UPDATE revision SET number = number + 1;
    INSERT INTO changed VALUES (NEW.id, (SELECT number FROM revision))
    ON CONFLICT DO UPDATE SET number = excluded.number;
END;

CREATE TRIGGER users_update_is_noticed AFTER UPDATE ON users BEGIN
    UPDATE revision SET number = number + 1;
    INSERT INTO changed VALUES (NEW.id, (SELECT number FROM revision))
    ON CONFLICT DO UPDATE SET number = excluded.number;
END;

CREATE TRIGGER users_delete_is_noticed AFTER DELETE ON users BEGIN
    UPDATE revision SET number = number + 1;
    INSERT INTO changed VALUES (OLD.id, (SELECT number FROM revision))
    ON CONFLICT DO UPDATE SET number = excluded.number;
END;

CREATE TRIGGER keys_insert_is_noticed AFTER INSERT ON keys BEGIN
    UPDATE revision SET number = number + 1;
    INSERT INTO changed VALUES (NEW.user_id, (SELECT number FROM revision))
    ON CONFLICT DO UPDATE SET number = excluded.number;
END;

CREATE TRIGGER keys_update_is_noticed AFTER UPDATE ON keys BEGIN
    UPDATE revision SET number = number + 1;
    INSERT INTO changed VALUES (NEW.user_id, (SELECT number FROM revision))
    ON CONFLICT DO UPDATE SET number = excluded.number;
END;

CREATE TRIGGER keys_delete_is_noticed AFTER DELETE ON keys BEGIN
    UPDATE revision SET number = number + 1;
    INSERT INTO changed VALUES (OLD.user_id, (SELECT number FROM revision))
    ON CONFLICT DO UPDATE SET number = excluded.number;
END;

CREATE TRIGGER credit_is_noticed AFTER INSERT ON statement WHEN NEW.kind = 'credit' BEGIN
    UPDATE revision SET number = number + 1;
    INSERT INTO changed VALUES (NEW.user_id, (SELECT number FROM revision))
    ON CONFLICT DO UPDATE SET number = excluded.number;
END;

CREATE TRIGGER spend_limit_insert_is_noticed AFTER INSERT ON spend_limit BEGIN
    UPDATE revision SET number = number + 1;
    INSERT INTO changed VALUES (NEW.user_id, (SELECT number FROM revision))
    ON CONFLICT DO UPDATE SET number = excluded.number;
END;

CREATE TRIGGER spend_limit_update_is_noticed AFTER UPDATE ON spend_limit BEGIN
    UPDATE revision SET number = number + 1;
    INSERT INTO changed VALUES (NEW.user_id, (SELECT number FROM revision))
    ON CONFLICT DO UPDATE SET number = excluded.number;
END;

CREATE TRIGGER spend_limit_delete_is_noticed AFTER DELETE ON spend_limit BEGIN
    UPDATE revision SET number = number + 1;
    INSERT INTO changed VALUES (OLD.user_id, (SELECT number FROM revision))
    ON CONFLICT DO UPDATE SET number = excluded.number;
END;
