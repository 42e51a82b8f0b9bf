"""A row of each shared table, in the order in which they can be written."""

USER = "INSERT INTO users (id, email, plan, created_at) VALUES (?, ?, 'free', 1.5)"
CREDIT = """INSERT INTO statement (id, user_id, time, kind, amount_micro, balance_after, note)
    VALUES ((SELECT (coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'statement'), 0)
        / 1024 + 1) * 1024 + number FROM replica), ?1, 2.0, 'credit', ?2,
        ?2 + coalesce((SELECT micro FROM balance WHERE user_id = ?1), 0), '')"""
USAGE = """INSERT INTO usage (id, time, key_id, user_id, model, dialect, reserved, status, served,
    upstream, input, output, cache_read, cache_write, cost_micro, ttfb_us, duration_us, outcome,
    rule) VALUES (?, ?, 'key_1', ?, 'm', 'messages', 9, 200, 'm', 'up', 3, 4, 0, 0, 5, 10, 20,
    'whole', 'reported')"""

ROWS: dict[str, str] = {
    "value": "INSERT INTO value VALUES ('a secret', x'00ff')",
    "users": "INSERT INTO users (id, email, plan, created_at) VALUES ('usr_1', 'a@b', 'p', 2.0)",
    "keys": """INSERT INTO keys (id, user_id, name, digest, hint, created_at, models)
        VALUES ('key_1', 'usr_1', 'n', zeroblob(32), 'h', 1e9, '["m"]')""",
    "spend_limit": "INSERT INTO spend_limit VALUES ('lim_1', 'usr_1', 'daily', 5, 1.0, 1.0)",
    "statement": CREDIT.replace("?1", "'usr_1'").replace("?2", "7"),
    "period": """INSERT INTO period (user_id, plan, kind, starts_at, ends_at, plan_then, source)
        VALUES ('usr_1', 'p', 'start', 1.0, 2.0, 'q', 'code_1')""",
    "code": """INSERT INTO code (id, batch, digest, hint, kind, uses, created_at)
        VALUES ('code_1', 'batch_1', zeroblob(32), 'h', 'credit', 2, 1.0)""",
    "redemption": "INSERT INTO redemption VALUES ('code_1', 'usr_1', 3.25)",
    "payment": """INSERT INTO payment (id, user_id, email, offer, title, price, currency,
        credit_micro, plan, seconds, plan_then, tax_percent, seller, state, created_at)
        VALUES ('pay_1', 'usr_1', 'a@b', 'o', 't', 5, 'eur', 6, '', 0, '', '19', 's', 'open', 1)""",
    "payment_event": """INSERT INTO payment_event (id, time, kind, intent, amount, currency, note)
        VALUES ('evt_1', 1.0, 'paid', 'i', 5, 'eur', '')""",
    "session": """INSERT INTO session
        VALUES (zeroblob(32), 'usr_1', 1.0, 2.0, '::1', 'a' || char(0))""",
    "link": "INSERT INTO link VALUES (zeroblob(32), 'reset', 'usr_1', NULL, NULL, 9.0)",
    "totp": "INSERT INTO totp (user_id, sealed) VALUES ('usr_1', x'01')",
    "recovery_code": "INSERT INTO recovery_code VALUES (zeroblob(32), 'usr_1')",
    "passkey": "INSERT INTO passkey VALUES (x'0a', 'usr_1', x'0b', 1, 'n', 1.0, NULL)",
    "identity": "INSERT INTO identity VALUES ('https://i', 'é\"/\\', 'usr_1', 'a@b', 1.0, NULL)",
    "threshold_choice": "INSERT INTO threshold_choice VALUES ('usr_1', '[80]', NULL, 'en')",
    "threshold_mail": "INSERT INTO threshold_mail VALUES ('usr_1', 'balance', 9, 0)",
    "announcement": """INSERT INTO announcement (id, kind, text, starts_at, created_at)
        VALUES ('ann_1', 'notice', '时间', 1.0, 1.0)""",
    "admin_key": """INSERT INTO admin_key
        VALUES ('adm_1', 'n', zeroblob(32), 'h', '[]', 1, NULL, NULL)""",
    "idempotency": "INSERT INTO idempotency VALUES ('adm_1', 'n', x'01', 1.0, 200, x'7b7d')",
    "pause": "INSERT INTO pause VALUES ('up', 1.0)",
    "response": "INSERT INTO response VALUES ('resp_1', 'usr_1', NULL, 1.0, 2.0, randomblob(5000))",
    "audit": """INSERT INTO audit (id, time, actor, address, action, subject)
        VALUES ((SELECT 1024 + number FROM replica), 1.0, 'relay', '', 'a', 's')""",
    "usage": USAGE.replace("(?, ?,", "('req_1', 3.5,").replace("'key_1', ?", "'key_1', 'usr_1'"),
}
