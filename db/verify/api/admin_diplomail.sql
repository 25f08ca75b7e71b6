-- Verify galaxy-backend:api/admin_diplomail on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.admin_diplomail_send(text, uuid, jsonb)',
        'api.admin_diplomail_list(text, uuid, integer, text)',
        'api.admin_diplomail_broadcast(text, jsonb)',
        'api.admin_diplomail_purge(text, jsonb)'
    ] LOOP
        ASSERT (SELECT p.prosecdef AND p.proowner = 'backend_owner'::regrole
                       AND p.proconfig[1] ~ '^search_path=backend, (procrastinate, )?pg_catalog, pg_temp$'
                  FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a function of a door', v_signature);
        ASSERT has_function_privilege('backend_api', v_signature, 'EXECUTE'), format('backend_api cannot execute %s', v_signature);
    END LOOP;
END;
$$;

ROLLBACK;
