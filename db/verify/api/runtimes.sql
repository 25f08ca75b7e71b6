-- Verify galaxy-backend:api/runtimes on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.runtime_list(text, integer, text)',
        'api.runtime_get(text, uuid)',
        'api.runtime_force_next_turn(text, uuid)',
        'api.runtime_restart(text, uuid)',
        'api.runtime_patch(text, uuid, jsonb)',
        'api.runtime_logs_take(text, uuid)',
        'api.runtime_logs_get(text, uuid)'
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
