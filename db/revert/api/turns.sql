-- Revert galaxy-backend:api/turns from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.engine_access(uuid, uuid, boolean);

COMMIT;
