-- Deploy galaxy-backend:api/applications to pg
-- requires: backend/application_rules
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.application_create(p_user_id uuid, p_game_id uuid, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_application applications%ROWTYPE;
BEGIN
    PERFORM account_require(p_user_id);
    PERFORM account_lock(p_user_id);
    v_game := game_lock(p_game_id);
    IF v_game.game_id IS NULL OR NOT game_is_visible(v_game, p_user_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    v_application := application_insert(v_game, p_user_id, p_body ->> 'race_name');
    RETURN ROW(201, application_json(v_application)::text,
               format('/api/v1/user/lobby/games/%s/applications/%s', p_game_id, v_application.application_id))::api.reply;
END;
$$;
COMMENT ON FUNCTION api.application_create(uuid, uuid, jsonb) IS
    'Asks for a seat in a public game under a race name. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, game_not_found, GX409 invalid_transition, already_member, already_applied, GX422 eligibility_denied, enrollment_ended, limit_reached, invalid_name, name_taken.';

CREATE FUNCTION api.application_get(p_user_id uuid, p_game_id uuid, p_application_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_application applications%ROWTYPE;
BEGIN
    PERFORM account_require(p_user_id);
    SELECT a.* INTO v_application FROM applications AS a JOIN games AS g USING (game_id)
     WHERE a.application_id = p_application_id AND a.game_id = p_game_id AND p_user_id IN (a.applicant_user_id, g.owner_user_id);
    IF NOT FOUND THEN
        PERFORM fail(404, 'application_not_found', 'There is no such application.');
    END IF;
    RETURN application_json(v_application)::text;
END;
$$;
COMMENT ON FUNCTION api.application_get(uuid, uuid, uuid) IS
    'An application, for who made it and the game''s owner. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, application_not_found.';

CREATE FUNCTION api.application_list(p_user_id uuid, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'application_list:' || p_game_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
BEGIN
    PERFORM account_require(p_user_id);
    IF (game_find(p_game_id, p_user_id)).owner_user_id IS DISTINCT FROM p_user_id THEN
        PERFORM fail(403, 'forbidden', 'Only those who run this game may do that.');
    END IF;
    RETURN applications_page(v_list, p_game_id, NULL, p_limit, v_before);
END;
$$;
COMMENT ON FUNCTION api.application_list(uuid, uuid, integer, text) IS
    'The applications to the caller''s game, newest first. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found.';

CREATE FUNCTION api.my_application_list(p_user_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'my_application_list:' || p_user_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
BEGIN
    PERFORM account_require(p_user_id);
    RETURN applications_page(v_list, NULL, p_user_id, p_limit, v_before);
END;
$$;
COMMENT ON FUNCTION api.my_application_list(uuid, integer, text) IS
    'The caller''s applications, newest first. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

CREATE FUNCTION api.application_approve(p_user_id uuid, p_game_id uuid, p_application_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM account_require(p_user_id);
    RETURN application_json(application_approve(p_game_id, p_application_id, 'user', p_user_id::text))::text;
END;
$$;
COMMENT ON FUNCTION api.application_approve(uuid, uuid, uuid) IS
    'Gives a seat to somebody who applied to the caller''s game. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, application_not_found, GX409 invalid_transition, already_member, GX422 enrollment_ended, eligibility_denied, limit_reached, game_full, invalid_name, name_taken.';

CREATE FUNCTION api.application_reject(p_user_id uuid, p_game_id uuid, p_application_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM account_require(p_user_id);
    RETURN application_json(application_end(
        application_hold(p_game_id, p_application_id, 'reject', 'user', p_user_id::text), 'rejected'))::text;
END;
$$;
COMMENT ON FUNCTION api.application_reject(uuid, uuid, uuid) IS
    'Declines an application to the caller''s game. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, application_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.application_withdraw(p_user_id uuid, p_game_id uuid, p_application_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM account_require(p_user_id);
    RETURN application_json(application_end(
        application_hold(p_game_id, p_application_id, 'withdraw', 'user', p_user_id::text), 'withdrawn'))::text;
END;
$$;
COMMENT ON FUNCTION api.application_withdraw(uuid, uuid, uuid) IS
    'Takes an application of the caller''s back. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, application_not_found, GX409 invalid_transition.';

COMMIT;
