-- Verify galaxy-backend:api/games on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.game_create(uuid, jsonb)',
        'api.game_get(uuid, uuid)',
        'api.game_list(uuid, integer, text, text[], text)',
        'api.game_update(uuid, uuid, jsonb)',
        'api.game_action_list(uuid, uuid)',
        'api.my_game_list(uuid, integer, text)',
        'api.game_open_enrollment(uuid, uuid)',
        'api.game_ready_to_start(uuid, uuid)',
        'api.game_start(uuid, uuid)',
        'api.game_retry_start(uuid, uuid)',
        'api.game_pause(uuid, uuid)',
        'api.game_resume(uuid, uuid)',
        'api.game_cancel(uuid, uuid)',
        'api.game_history_list(uuid, uuid, integer, text)'
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
