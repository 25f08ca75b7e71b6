-- Revert galaxy-backend:worker/service from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION worker.schema_changes();

COMMIT;
