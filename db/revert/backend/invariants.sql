-- Revert galaxy-backend:backend/invariants from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants;
DROP FUNCTION backend.invariants_collect();

COMMIT;
