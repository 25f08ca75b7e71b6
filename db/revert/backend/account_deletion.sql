-- Revert galaxy-backend:backend/account_deletion from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.account_delete(uuid);
DROP FUNCTION backend.mail_forget(uuid, uuid[]);
DROP FUNCTION backend.code_mails(text[]);
DROP FUNCTION backend.ways_in_lock(uuid);
DROP TABLE backend.deletion_rules;

COMMIT;
