-- Verify galaxy-backend:api/notifications on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.notification_list(text, text, uuid, text, integer, text)',
        'api.notification_get(text, uuid)',
        'api.notification_dead_letter_list(text, text, integer, text)',
        'api.notification_dead_letter_retry(text, uuid)',
        'api.notification_malformed_list(text, integer, text)'
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
