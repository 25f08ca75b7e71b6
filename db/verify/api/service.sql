-- Verify galaxy-backend:api/service on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.schema_changes()',
        'api.constraint_errors()',
        'api.program_is_heard(text)'
    ] LOOP
        ASSERT (SELECT p.prosecdef AND p.proowner = 'backend_owner'::regrole
                       AND p.proconfig[1] ~ '^search_path=backend, (procrastinate, )?pg_catalog, pg_temp$'
                  FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a function of a door', v_signature);
        ASSERT has_function_privilege('backend_api', v_signature, 'EXECUTE'), format('backend_api cannot execute %s', v_signature);
    END LOOP;
    SET LOCAL ROLE backend_owner;
    ASSERT (SELECT count(*) > 0 FROM api.schema_changes()), 'the deployed changes cannot be read';
END;
$$;

ROLLBACK;
