-- Revert galaxy-backend:backend/errors from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP TABLE backend.constraint_errors;
DROP FUNCTION backend.refusal(integer, text, text, jsonb);
DROP TYPE api.reply;
DROP FUNCTION backend.fail(integer, text, text, jsonb);

COMMIT;
