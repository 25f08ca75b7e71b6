-- Revert galaxy-backend:backend/lobby_release from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_lobby_release;
DROP FUNCTION backend.lobby_release(uuid, text);

COMMIT;
