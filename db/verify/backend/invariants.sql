-- Verify galaxy-backend:backend/invariants on pg

BEGIN;
SET LOCAL ROLE backend_owner;

-- A violation in a view of an area must come out.
CREATE VIEW backend.invariants_verify AS SELECT 'verify' AS invariant, 'x' AS object_id, 'y' AS details;

DO $$
BEGIN
    ASSERT (SELECT count(*) = 1 FROM backend.invariants WHERE invariant = 'verify'), 'a violation is not listed';
    PERFORM 'backend.invariants_collect()'::regprocedure;
END;
$$;

ROLLBACK;
