-- Revert galaxy-backend:api/games from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.game_history_list(uuid, uuid, integer, text);
DROP FUNCTION api.game_cancel(uuid, uuid);
DROP FUNCTION api.game_resume(uuid, uuid);
DROP FUNCTION api.game_pause(uuid, uuid);
DROP FUNCTION api.game_retry_start(uuid, uuid);
DROP FUNCTION api.game_start(uuid, uuid);
DROP FUNCTION api.game_ready_to_start(uuid, uuid);
DROP FUNCTION api.game_open_enrollment(uuid, uuid);
DROP FUNCTION api.my_game_list(uuid, integer, text);
DROP FUNCTION api.game_action_list(uuid, uuid);
DROP FUNCTION api.game_update(uuid, uuid, jsonb);
DROP FUNCTION api.game_list(uuid, integer, text, text[], text);
DROP FUNCTION api.game_get(uuid, uuid);
DROP FUNCTION api.game_create(uuid, jsonb);

COMMIT;
