-- Revert galaxy-backend:backend/race_names from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.race_name_reserve(uuid, text);
DROP FUNCTION backend.race_name_clean(text);
DROP FUNCTION backend.race_name_canonical(text);
DROP TABLE backend.race_names;

COMMIT;
