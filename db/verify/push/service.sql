-- Verify galaxy-backend:push/service on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'push.schema_changes()'
    ] LOOP
        ASSERT (SELECT p.prosecdef AND p.proowner = 'backend_owner'::regrole
                       AND p.proconfig[1] ~ '^search_path=backend, (procrastinate, )?pg_catalog, pg_temp$'
                  FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a function of a door', v_signature);
        ASSERT has_function_privilege('backend_push', v_signature, 'EXECUTE'), format('backend_push cannot execute %s', v_signature);
    END LOOP;
    SET LOCAL ROLE backend_owner;
    ASSERT (SELECT count(*) > 0 FROM push.schema_changes()), 'the deployed changes cannot be read';
END;
$$;

ROLLBACK;
