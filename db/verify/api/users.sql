-- Verify galaxy-backend:api/users on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.user_list(text, integer, text, text, text[], text, text)',
        'api.user_get(text, uuid)',
        'api.user_entitlement_grant(text, uuid, jsonb)',
        'api.user_sanction_apply(text, uuid, jsonb)',
        'api.user_sanction_lift(text, uuid, text, jsonb)',
        'api.user_limit_apply(text, uuid, jsonb)',
        'api.user_limit_clear(text, uuid, text, jsonb)',
        'api.user_session_list(text, uuid, integer, text)',
        'api.user_session_revoke_all(text, uuid, jsonb)',
        'api.user_soft_delete(text, uuid, jsonb)'
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
