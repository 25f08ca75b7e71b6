-- Revert galaxy-backend:backend/idempotency from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP TABLE backend.idempotency_keys;

COMMIT;
