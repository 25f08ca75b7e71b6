-- Revert galaxy-backend:api/admin_games from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.admin_invite_revoke(text, uuid, uuid);
DROP FUNCTION api.admin_invite_get(text, uuid, uuid);
DROP FUNCTION api.admin_invite_list(text, uuid, integer, text);
DROP FUNCTION api.admin_invite_create(text, uuid, jsonb, text, bytea);
DROP FUNCTION api.admin_application_reject(text, uuid, uuid);
DROP FUNCTION api.admin_application_approve(text, uuid, uuid);
DROP FUNCTION api.admin_application_list(text, uuid, integer, text);
DROP FUNCTION api.admin_membership_list(text, uuid, integer, text);
DROP FUNCTION api.admin_game_history_list(text, uuid, integer, text);
DROP FUNCTION api.admin_game_ban_member(text, uuid, jsonb);
DROP FUNCTION api.admin_game_force_stop(text, uuid);
DROP FUNCTION api.admin_game_force_start(text, uuid);
DROP FUNCTION api.admin_game_cancel(text, uuid);
DROP FUNCTION api.admin_game_resume(text, uuid);
DROP FUNCTION api.admin_game_pause(text, uuid);
DROP FUNCTION api.admin_game_retry_start(text, uuid);
DROP FUNCTION api.admin_game_start(text, uuid);
DROP FUNCTION api.admin_game_ready_to_start(text, uuid);
DROP FUNCTION api.admin_game_open_enrollment(text, uuid);
DROP FUNCTION api.admin_game_update(text, uuid, jsonb);
DROP FUNCTION api.admin_game_get(text, uuid);
DROP FUNCTION api.admin_game_create(text, jsonb);
DROP FUNCTION api.admin_game_list(text, integer, text, text, text[], uuid, text);

COMMIT;
