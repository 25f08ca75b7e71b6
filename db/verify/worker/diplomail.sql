-- Verify galaxy-backend:worker/diplomail on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'worker.diplomail_broadcast()',
        'worker.diplomail_claim(numeric)',
        'worker.diplomail_report(uuid, text, integer, text, text, text, text)',
        'worker.diplomail_purge(integer)'
    ] LOOP
        ASSERT (SELECT p.prosecdef AND p.proowner = 'backend_owner'::regrole
                       AND p.proconfig[1] ~ '^search_path=backend, (procrastinate, )?pg_catalog, pg_temp$'
                  FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a function of a door', v_signature);
        ASSERT has_function_privilege('backend_worker', v_signature, 'EXECUTE'), format('backend_worker cannot execute %s', v_signature);
    END LOOP;
END;
$$;

ROLLBACK;
