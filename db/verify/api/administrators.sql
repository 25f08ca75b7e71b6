-- Verify galaxy-backend:api/administrators on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.administrator_credential(text, inet)',
        'api.administrator_attempt_failed(text, inet)',
        'api.administrator_used(text, inet)',
        'api.administrator_bootstrap(text, text)',
        'api.administrator_list(text, integer, text)',
        'api.administrator_get(text, text)',
        'api.administrator_create(text, jsonb, text)',
        'api.administrator_disable(text, text)',
        'api.administrator_enable(text, text)',
        'api.administrator_reset_password(text, text, jsonb, text)'
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
