-- Verify galaxy-backend:api/diplomail on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.diplomail_send(uuid, uuid, jsonb)',
        'api.diplomail_inbox_list(uuid, uuid, integer, text)',
        'api.diplomail_sent_list(uuid, uuid, integer, text)',
        'api.diplomail_get(uuid, uuid, uuid)',
        'api.diplomail_read(uuid, uuid, uuid)',
        'api.diplomail_delete(uuid, uuid, uuid)',
        'api.diplomail_unread_list(uuid)'
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
