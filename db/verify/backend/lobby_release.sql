-- Verify galaxy-backend:backend/lobby_release on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'backend.lobby_release(uuid, text)'
    ] LOOP
        ASSERT (SELECT NOT p.prosecdef AND p.proowner = 'backend_owner'::regrole FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a helper of the owner', v_signature);
    END LOOP;
    ASSERT NOT EXISTS (SELECT FROM backend.invariants_lobby_release), 'an invariant is violated';
END;
$$;

ROLLBACK;
