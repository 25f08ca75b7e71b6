-- Revert galaxy-backend:api/auth from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.email_code_confirm(jsonb, bytea, text, inet);
DROP FUNCTION api.email_code_send(jsonb, text, bytea, inet);

COMMIT;
