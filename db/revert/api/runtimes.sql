-- Revert galaxy-backend:api/runtimes from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.runtime_logs_get(text, uuid);
DROP FUNCTION api.runtime_logs_take(text, uuid);
DROP FUNCTION api.runtime_patch(text, uuid, jsonb);
DROP FUNCTION api.runtime_restart(text, uuid);
DROP FUNCTION api.runtime_force_next_turn(text, uuid);
DROP FUNCTION api.runtime_get(text, uuid);
DROP FUNCTION api.runtime_list(text, integer, text);

COMMIT;
