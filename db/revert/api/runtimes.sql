-- Revert galaxy-backend:api/runtimes from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.runtime_force_next_turn(text, uuid);
DROP FUNCTION api.runtime_get(text, uuid);
DROP FUNCTION api.runtime_list(text, integer, text);

COMMIT;
