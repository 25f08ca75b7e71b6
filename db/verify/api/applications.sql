-- Verify galaxy-backend:api/applications on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.application_create(uuid, uuid, jsonb)',
        'api.application_get(uuid, uuid, uuid)',
        'api.application_list(uuid, uuid, integer, text)',
        'api.my_application_list(uuid, integer, text)',
        'api.application_approve(uuid, uuid, uuid)',
        'api.application_reject(uuid, uuid, uuid)',
        'api.application_withdraw(uuid, uuid, uuid)'
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
