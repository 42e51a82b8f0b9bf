-- Payments by Stripe. Amounts are cents of the payment's currency, or its units where it has no
-- decimals; credit is micro-dollars.

-- What somebody wanted to buy, as it was offered then, and what became of it.
CREATE TABLE payment (
    id             TEXT    NOT NULL PRIMARY KEY,
    user_id        TEXT    NOT NULL,
    email          TEXT    NOT NULL,             -- then
    offer          TEXT    NOT NULL,
    title          TEXT    NOT NULL,
    price          INTEGER NOT NULL CHECK (price > 0),
    currency       TEXT    NOT NULL,
    credit_micro   INTEGER NOT NULL,             -- 0: a plan
    plan           TEXT    NOT NULL,             -- empty: credit
    seconds        INTEGER NOT NULL,             -- of the plan
    plan_then      TEXT    NOT NULL,
    tax_percent    TEXT    NOT NULL,             -- a decimal number, contained in the price
    seller         TEXT    NOT NULL,             -- of the invoice
    state          TEXT    NOT NULL
        CHECK (state IN ('open', 'pending', 'expired', 'failed', 'paid')),
    created_at     REAL    NOT NULL,
    session        TEXT    UNIQUE,               -- Stripe's ids: of the Checkout Session
    intent         TEXT    UNIQUE,               -- and of the PaymentIntent
    paid_at        REAL,
    fulfilled_at   REAL,                         -- null: what was bought was not handed over
    refunded       INTEGER NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND price),
    reversed_micro INTEGER NOT NULL DEFAULT 0 CHECK (reversed_micro BETWEEN 0 AND credit_micro),
    disputed_at    REAL,
    invoice_year   INTEGER,
    invoice_number INTEGER,
    UNIQUE (invoice_year, invoice_number)
) STRICT;

CREATE INDEX payment_by_user ON payment (user_id);
CREATE INDEX payment_by_time ON payment (paid_at) WHERE paid_at IS NOT NULL;

-- A number that is gone would be a gap.
CREATE TRIGGER payment_keeps_invoices BEFORE DELETE ON payment WHEN OLD.paid_at IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'a payment is never deleted');
END;

-- What Stripe said, once for each event: the state of a payment follows from these rows alone, in
-- whatever order they came.
CREATE TABLE payment_event (
    id          TEXT    NOT NULL PRIMARY KEY,
    time        REAL    NOT NULL,
    kind        TEXT    NOT NULL,
    payment     TEXT,              -- null: of none that is known here
    intent      TEXT    NOT NULL,
    amount      INTEGER NOT NULL,  -- paid, refunded so far, or disputed
    currency    TEXT    NOT NULL,
    note        TEXT    NOT NULL,  -- why somebody has to act, as a word; empty: nobody has to
    resolved_at REAL
) STRICT;

CREATE INDEX payment_event_by_payment ON payment_event (payment);
CREATE INDEX payment_event_by_intent ON payment_event (intent) WHERE payment IS NULL;
CREATE INDEX payment_event_noted ON payment_event (time) WHERE note <> '' AND resolved_at IS NULL;
