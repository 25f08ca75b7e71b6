-- Verify galaxy-backend:backend/application_rules on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'backend.application_json(backend.applications)',
        'backend.application_refusal(backend.games, backend.applications, text, text, text)',
        'backend.application_insert(backend.games, uuid, text)',
        'backend.application_hold(uuid, uuid, text, text, text)',
        'backend.application_end(backend.applications, text)',
        'backend.application_approve(uuid, uuid, text, text)',
        'backend.applications_page(text, uuid, uuid, integer, uuid)'
    ] LOOP
        ASSERT (SELECT NOT p.prosecdef AND p.proowner = 'backend_owner'::regrole FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a helper of the owner', v_signature);
    END LOOP;
    ASSERT NOT EXISTS (SELECT FROM backend.invariants_applications), 'an invariant is violated';
END;
$$;

ROLLBACK;
