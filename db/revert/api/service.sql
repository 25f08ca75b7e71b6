-- Revert galaxy-backend:api/service from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.program_is_heard(text);
DROP FUNCTION api.constraint_errors();
DROP FUNCTION api.schema_changes();

COMMIT;
