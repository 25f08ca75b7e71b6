-- Verify galaxy-backend:api/invites on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.invite_create(uuid, uuid, jsonb, text, bytea)',
        'api.invite_list(uuid, uuid, integer, text)',
        'api.invite_get(uuid, uuid, uuid)',
        'api.my_invite_list(uuid, integer, text)',
        'api.invite_redeem(uuid, uuid, uuid, jsonb, bytea)',
        'api.invite_redeem_by_code(uuid, jsonb, bytea)',
        'api.invite_decline(uuid, uuid, uuid)',
        'api.invite_revoke(uuid, uuid, uuid)'
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
