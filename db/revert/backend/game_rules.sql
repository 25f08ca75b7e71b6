-- Revert galaxy-backend:backend/game_rules from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_games;
DROP FUNCTION backend.seat_is_played(backend.memberships);
DROP FUNCTION backend.membership_end(backend.games, backend.memberships, text, text);
DROP FUNCTION backend.membership_refusal(backend.games, backend.memberships, text, text, text);
DROP FUNCTION backend.membership_actor(backend.games, backend.memberships, text, text, text);
DROP FUNCTION backend.seat_take(backend.games, uuid, text);
DROP FUNCTION backend.memberships_page(text, uuid, integer, uuid);
DROP FUNCTION backend.membership_json(backend.memberships);
DROP FUNCTION backend.game_command_by_admin(text, text, uuid, text, text);
DROP FUNCTION backend.game_command(uuid, text, uuid, text);
DROP FUNCTION backend.game_transition(backend.games, text, text, text, text);
DROP FUNCTION backend.runtime_unwant(uuid);
DROP FUNCTION backend.runtime_want(backend.games);
DROP FUNCTION backend.game_notify(uuid, text, text, jsonb);
DROP FUNCTION backend.game_history_page(text, uuid, integer, uuid, boolean);
DROP FUNCTION backend.game_actions(backend.games, text, text);
DROP FUNCTION backend.game_refusal(backend.games, text, text, text);
DROP FUNCTION backend.edge_refusal(text, text, text, text, uuid);
DROP FUNCTION backend.game_lock(uuid);
DROP FUNCTION backend.game_find(uuid, uuid);
DROP FUNCTION backend.game_is_visible(backend.games, uuid);
DROP FUNCTION backend.games_newest(text, text[], uuid, text, uuid, integer);
DROP FUNCTION backend.game_edit(backend.games, jsonb);
DROP FUNCTION backend.game_insert(backend.games, text, uuid, text, text);
DROP FUNCTION backend.game_from_body(backend.games, jsonb);
DROP FUNCTION backend.game_json(backend.games);
DROP FUNCTION backend.game_member_count(uuid);
DROP FUNCTION backend.sanction_refuse(uuid, text);
DROP FUNCTION backend.account_lock(uuid);
DROP FUNCTION backend.account_limit(uuid, text);
DROP FUNCTION backend.refuse(backend.reason);
DROP TYPE backend.reason;

COMMIT;
