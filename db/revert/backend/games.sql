-- Revert galaxy-backend:backend/games from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP TABLE backend.invite_attempts;
DROP TABLE backend.applications;
DROP TABLE backend.invites;
DROP TABLE backend.memberships;
DROP TABLE backend.game_history;
DROP TABLE backend.games;
DROP FUNCTION backend.tg_games__fold_name();
DROP FUNCTION backend.tg_memberships__note_end();
DELETE FROM backend.state_transitions WHERE machine IN ('game', 'membership', 'application', 'invite');

COMMIT;
