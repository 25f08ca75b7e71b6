-- Revert galaxy-backend:backend/game_rules from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_games;
DROP FUNCTION backend.seat_is_played(backend.memberships);
DROP FUNCTION backend.seat_take(backend.games, uuid, text);
DROP FUNCTION backend.membership_json(backend.memberships);
DROP FUNCTION backend.game_command(uuid, text, uuid, text);
DROP FUNCTION backend.game_transition(backend.games, text, text, text, text);
DROP FUNCTION backend.runtime_unwant(uuid);
DROP FUNCTION backend.runtime_want(backend.games);
DROP FUNCTION backend.game_notify(uuid, text, text, jsonb);
DROP FUNCTION backend.game_refusal(backend.games, text, text, text);
DROP FUNCTION backend.game_lock(uuid);
DROP FUNCTION backend.game_find(uuid, uuid);
DROP FUNCTION backend.game_is_visible(backend.games, uuid);
DROP FUNCTION backend.game_insert(jsonb, text, uuid);
DROP FUNCTION backend.game_json(backend.games);
DROP FUNCTION backend.game_member_count(uuid);
DROP FUNCTION backend.sanction_refuse(uuid, text);
DROP FUNCTION backend.account_lock(uuid);
DROP FUNCTION backend.account_limit(uuid, text);
DROP TYPE backend.reason;

COMMIT;
