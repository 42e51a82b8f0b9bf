-- An invitation is a code. Links that were invitations become codes for one person; the token of
-- such a link stays what its owner has.
INSERT INTO code (id, batch, digest, hint, kind, plan, uses, created_at, expires_at)
SELECT 'code_' || lower(hex(randomblob(8))), 'batch_' || lower(hex(randomblob(8))), digest, '…',
    'invite', plan, 1, expires_at - 7 * 86400, expires_at
FROM link WHERE purpose = 'invite';

DELETE FROM link WHERE purpose = 'invite';

ALTER TABLE link DROP COLUMN plan;
