-- Revert galaxy-backend:push/service from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION push.schema_changes();

COMMIT;
