-- Verify galaxy-backend:api/race_names on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.race_name_register(uuid, jsonb)',
        'api.race_name_check(uuid, text)',
        'api.my_race_name_list(uuid, integer, text)'
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
