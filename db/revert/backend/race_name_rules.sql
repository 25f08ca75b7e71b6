-- Revert galaxy-backend:backend/race_name_rules from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.race_names_recompute();
DROP VIEW backend.race_name_problems;
DROP VIEW backend.invariants_race_names;
DROP FUNCTION backend.race_name_json(backend.race_names);
DROP FUNCTION backend.race_names_expire(integer);
DROP FUNCTION backend.race_names_settle(uuid, boolean);
DROP FUNCTION backend.race_name_release_unused(uuid, text);
DROP FUNCTION backend.race_name_reserve(uuid, text);
DROP FUNCTION backend.race_name_hold(text);
DROP FUNCTION backend.race_name_expire(uuid);
DROP FUNCTION backend.race_name_is_taken(uuid, text);
DROP FUNCTION backend.race_name_is_expired(backend.race_names);
DROP FUNCTION backend.race_name_tier(backend.race_names);
DROP FUNCTION backend.race_name_game_ids(uuid, text);
DROP TRIGGER store_canonical ON backend.memberships;
DROP FUNCTION backend.tg_memberships__store_canonical();

COMMIT;
