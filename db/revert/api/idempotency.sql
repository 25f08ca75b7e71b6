-- Revert galaxy-backend:api/idempotency from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.idempotency_store(text, text, text, bytea, integer, text, text);
DROP FUNCTION api.idempotency_claim(text, text, text, text, bytea);

COMMIT;
