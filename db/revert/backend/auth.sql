-- Revert galaxy-backend:backend/auth from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.code_hash(uuid, bytea);
DROP FUNCTION backend.email_normalise(text);
DROP TABLE backend.blocked_emails;
DROP TABLE backend.auth_challenges;

COMMIT;
