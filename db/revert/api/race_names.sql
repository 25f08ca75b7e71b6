-- Revert galaxy-backend:api/race_names from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.my_race_name_list(uuid, integer, text);
DROP FUNCTION api.race_name_check(uuid, text);
DROP FUNCTION api.race_name_register(uuid, jsonb);

COMMIT;
