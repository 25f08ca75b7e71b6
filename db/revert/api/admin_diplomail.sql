-- Revert galaxy-backend:api/admin_diplomail from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.admin_diplomail_purge(text, jsonb);
DROP FUNCTION api.admin_diplomail_broadcast(text, jsonb);
DROP FUNCTION api.admin_diplomail_list(text, uuid, integer, text);
DROP FUNCTION api.admin_diplomail_send(text, uuid, jsonb);

COMMIT;
