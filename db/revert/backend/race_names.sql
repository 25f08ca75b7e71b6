-- Revert galaxy-backend:backend/race_names from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.race_name_lock(text);
DROP FUNCTION backend.race_name_clean(text);
DROP FUNCTION backend.race_name_problem(text);
DROP FUNCTION backend.name_character(text);
DROP FUNCTION backend.race_name_tidy(text);
DROP TABLE backend.reserved_names;
DROP TABLE backend.race_names;
DROP FUNCTION backend.tg_race_name__store();
DROP FUNCTION backend.race_name_canonical(text);
DELETE FROM backend.state_transitions WHERE machine = 'race_name';

COMMIT;
