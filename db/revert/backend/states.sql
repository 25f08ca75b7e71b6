-- Revert galaxy-backend:backend/states from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.tg_state__follow_edges();
DROP TABLE backend.state_transitions;

COMMIT;
