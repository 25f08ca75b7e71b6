-- Verify galaxy-backend:api/admin_games on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'api.admin_game_list(text, integer, text, text, text[], uuid, text)',
        'api.admin_game_create(text, jsonb)',
        'api.admin_game_get(text, uuid)',
        'api.admin_game_update(text, uuid, jsonb)',
        'api.admin_game_open_enrollment(text, uuid)',
        'api.admin_game_ready_to_start(text, uuid)',
        'api.admin_game_start(text, uuid)',
        'api.admin_game_retry_start(text, uuid)',
        'api.admin_game_pause(text, uuid)',
        'api.admin_game_resume(text, uuid)',
        'api.admin_game_cancel(text, uuid)',
        'api.admin_game_force_start(text, uuid)',
        'api.admin_game_force_stop(text, uuid)',
        'api.admin_game_ban_member(text, uuid, jsonb)',
        'api.admin_game_history_list(text, uuid, integer, text)',
        'api.admin_membership_list(text, uuid, integer, text)',
        'api.admin_application_list(text, uuid, integer, text)',
        'api.admin_application_approve(text, uuid, uuid)',
        'api.admin_application_reject(text, uuid, uuid)',
        'api.admin_invite_create(text, uuid, jsonb, text, bytea)',
        'api.admin_invite_list(text, uuid, integer, text)',
        'api.admin_invite_get(text, uuid, uuid)',
        'api.admin_invite_revoke(text, uuid, uuid)'
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
