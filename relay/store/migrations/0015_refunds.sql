-- Refunds that fail, and plans that a purchase replaces.

-- When Stripe made the event (seconds), which orders refunds and their failures; and the refund
-- that failed. Empty: from before this column; its credit was given again by hand.
ALTER TABLE payment_event ADD COLUMN made_at REAL NOT NULL DEFAULT 0;
ALTER TABLE payment_event ADD COLUMN refund TEXT NOT NULL DEFAULT '';
UPDATE payment_event SET made_at = time;

-- The plan that a person agreed to give up for the one that they buy, and its end; null: it has
-- none. Empty: none.
ALTER TABLE payment ADD COLUMN replaces TEXT NOT NULL DEFAULT '';
ALTER TABLE payment ADD COLUMN replaces_until REAL;
