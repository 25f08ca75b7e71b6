-- Deploy galaxy-backend:api/admin_games to pg
-- requires: backend/application_rules
-- requires: backend/invite_rules
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.admin_game_list(
    p_admin text, p_limit integer, p_cursor text, p_visibility text, p_status text[], p_owner_user_id uuid, p_q text
) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := concat_ws(':', 'admin_game_list', p_visibility, p_status::text, p_owner_user_id, p_q);
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(game_json(r) ORDER BY r.game_id DESC), array_agg(r.game_id::text ORDER BY r.game_id DESC) INTO v_items, v_keys
      FROM games_newest(p_visibility, p_status, p_owner_user_id, p_q, v_before, p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.admin_game_list(text, integer, text, text, text[], uuid, text) IS
    'All games, newest first, by visibility, status, owner and a part of the name. GX400 invalid_cursor, GX401 unauthorized.';

CREATE FUNCTION api.admin_game_create(p_admin text, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_owner_id uuid := (p_body ->> 'owner_user_id')::uuid;
    v_game games%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_game := game_from_body(NULL, p_body);
    IF v_owner_id IS NOT NULL THEN
        -- Their account is not closed meanwhile: what it releases it looks for once.
        PERFORM FROM accounts AS a WHERE a.user_id = v_owner_id FOR SHARE;
        IF NOT EXISTS (SELECT FROM accounts AS a WHERE a.user_id = v_owner_id AND a.deleted_at IS NULL AND NOT a.permanent_block) THEN
            PERFORM fail(422, 'eligibility_denied', 'There is no such person to run a game.');
        END IF;
    END IF;
    v_game := game_insert(v_game, 'public', v_owner_id, 'admin', p_admin);
    PERFORM audit(p_admin, 'admin_game_create', 'game', v_game.game_id::text, jsonb_build_object('game_name', v_game.game_name));
    RETURN ROW(201, game_json(v_game)::text, '/api/v1/admin/games/' || v_game.game_id)::api.reply;
END;
$$;
COMMENT ON FUNCTION api.admin_game_create(text, jsonb) IS
    'Creates a public game, with an owner who runs it beside the administrators if one is named. GX400 invalid_request, GX401 unauthorized, GX422 eligibility_denied, engine_version_unavailable.';

CREATE FUNCTION api.admin_game_get(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT * INTO v_game FROM games WHERE game_id = p_game_id;
    IF NOT FOUND THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    RETURN game_json(v_game)::text;
END;
$$;
COMMENT ON FUNCTION api.admin_game_get(text, uuid) IS
    'Any game. GX401 unauthorized, GX404 game_not_found.';

CREATE FUNCTION api.admin_game_update(p_admin text, p_game_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    -- What is malformed whatever the game is.
    PERFORM game_from_body(NULL, p_body);
    v_game := game_lock(p_game_id);
    IF v_game.game_id IS NULL THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    v_game := game_edit(v_game, p_body);
    PERFORM audit(p_admin, 'admin_game_update', 'game', p_game_id::text, p_body);
    RETURN game_json(v_game)::text;
END;
$$;
COMMENT ON FUNCTION api.admin_game_update(text, uuid, jsonb) IS
    'Changes a game as far as its state allows. GX400 invalid_request, GX401 unauthorized, GX404 game_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.admin_game_open_enrollment(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command_by_admin(p_admin, 'admin_game_open_enrollment', p_game_id, 'open-enrollment');
END;
$$;
COMMENT ON FUNCTION api.admin_game_open_enrollment(text, uuid) IS
    'Opens enrolment. GX401 unauthorized, GX404 game_not_found, GX409 invalid_transition, GX422 engine_version_unavailable, enrollment_ended.';

CREATE FUNCTION api.admin_game_ready_to_start(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command_by_admin(p_admin, 'admin_game_ready_to_start', p_game_id, 'ready-to-start');
END;
$$;
COMMENT ON FUNCTION api.admin_game_ready_to_start(text, uuid) IS
    'Closes enrolment of a game with enough members. GX401 unauthorized, GX404 game_not_found, GX409 invalid_transition, GX422 not_enough_members.';

CREATE FUNCTION api.admin_game_start(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command_by_admin(p_admin, 'admin_game_start', p_game_id, 'start');
END;
$$;
COMMENT ON FUNCTION api.admin_game_start(text, uuid) IS
    'Starts a game; a job does it. GX401 unauthorized, GX404 game_not_found, GX409 invalid_transition, GX422 engine_version_unavailable, not_enough_members, GX503 runtime_busy.';

CREATE FUNCTION api.admin_game_retry_start(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command_by_admin(p_admin, 'admin_game_retry_start', p_game_id, 'retry-start');
END;
$$;
COMMENT ON FUNCTION api.admin_game_retry_start(text, uuid) IS
    'Tries once more to start a game. GX401 unauthorized, GX404 game_not_found, GX409 invalid_transition, GX422 engine_version_unavailable, not_enough_members, GX503 runtime_busy.';

CREATE FUNCTION api.admin_game_pause(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command_by_admin(p_admin, 'admin_game_pause', p_game_id, 'pause', 'by_admin');
END;
$$;
COMMENT ON FUNCTION api.admin_game_pause(text, uuid) IS
    'Pauses a running game. GX401 unauthorized, GX404 game_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.admin_game_resume(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command_by_admin(p_admin, 'admin_game_resume', p_game_id, 'resume');
END;
$$;
COMMENT ON FUNCTION api.admin_game_resume(text, uuid) IS
    'Lets a paused game go on. GX401 unauthorized, GX404 game_not_found, GX409 invalid_transition, GX422 engine_not_healthy.';

CREATE FUNCTION api.admin_game_cancel(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command_by_admin(p_admin, 'admin_game_cancel', p_game_id, 'cancel');
END;
$$;
COMMENT ON FUNCTION api.admin_game_cancel(text, uuid) IS
    'Cancels a game that has not started. GX401 unauthorized, GX404 game_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.admin_game_force_start(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command_by_admin(p_admin, 'admin_game_force_start', p_game_id, 'force-start');
END;
$$;
COMMENT ON FUNCTION api.admin_game_force_start(text, uuid) IS
    'Starts a game with enough members, also out of open enrolment; a job does it. GX401 unauthorized, GX404 game_not_found, GX409 invalid_transition, GX422 engine_version_unavailable, not_enough_members, GX503 runtime_busy.';

CREATE FUNCTION api.admin_game_force_stop(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command_by_admin(p_admin, 'admin_game_force_stop', p_game_id, 'force-stop', 'by_admin');
END;
$$;
COMMENT ON FUNCTION api.admin_game_force_stop(text, uuid) IS
    'Ends a game that has started; a job takes the engine away. GX401 unauthorized, GX404 game_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.admin_game_ban_member(p_admin text, p_game_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_membership memberships%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_game := game_lock(p_game_id);
    IF v_game.game_id IS NULL THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    SELECT * INTO v_membership FROM memberships WHERE game_id = p_game_id AND user_id = (p_body ->> 'user_id')::uuid FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'membership_not_found', 'This person has no seat in this game.');
    END IF;
    PERFORM refuse(membership_refusal(v_game, v_membership, 'block', 'admin', p_admin));
    v_membership := membership_end(v_game, v_membership, 'blocked', 'admin');
    PERFORM audit(p_admin, 'admin_game_ban_member', 'game', p_game_id::text, p_body);
    RETURN membership_json(v_membership)::text;
END;
$$;
COMMENT ON FUNCTION api.admin_game_ban_member(text, uuid, jsonb) IS
    'Blocks a member, who cannot come back to the game. GX401 unauthorized, GX404 game_not_found, membership_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.admin_game_history_list(p_admin text, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'game_history_list:' || p_game_id;
    v_after uuid := cursor_read_id(v_list, p_cursor);
BEGIN
    PERFORM administrator_require(p_admin);
    IF NOT EXISTS (SELECT FROM games AS g WHERE g.game_id = p_game_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    RETURN game_history_page(v_list, p_game_id, p_limit, v_after, true);
END;
$$;
COMMENT ON FUNCTION api.admin_game_history_list(text, uuid, integer, text) IS
    'What has happened to a game, oldest first. GX400 invalid_cursor, GX401 unauthorized, GX404 game_not_found.';

CREATE FUNCTION api.admin_membership_list(p_admin text, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'membership_list:' || p_game_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
BEGIN
    PERFORM administrator_require(p_admin);
    IF NOT EXISTS (SELECT FROM games AS g WHERE g.game_id = p_game_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    RETURN memberships_page(v_list, p_game_id, p_limit, v_before);
END;
$$;
COMMENT ON FUNCTION api.admin_membership_list(text, uuid, integer, text) IS
    'Who sits, or sat, in a game, newest first. GX400 invalid_cursor, GX401 unauthorized, GX404 game_not_found.';

CREATE FUNCTION api.admin_application_list(p_admin text, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'application_list:' || p_game_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
BEGIN
    PERFORM administrator_require(p_admin);
    IF NOT EXISTS (SELECT FROM games AS g WHERE g.game_id = p_game_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    RETURN applications_page(v_list, p_game_id, NULL, p_limit, v_before);
END;
$$;
COMMENT ON FUNCTION api.admin_application_list(text, uuid, integer, text) IS
    'The applications to a game, newest first. GX400 invalid_cursor, GX401 unauthorized, GX404 game_not_found.';

CREATE FUNCTION api.admin_application_approve(p_admin text, p_game_id uuid, p_application_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_application applications%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_application := application_approve(p_game_id, p_application_id, 'admin', p_admin);
    PERFORM audit(p_admin, 'admin_application_approve', 'application', p_application_id::text, jsonb_build_object('game_id', p_game_id));
    RETURN application_json(v_application)::text;
END;
$$;
COMMENT ON FUNCTION api.admin_application_approve(text, uuid, uuid) IS
    'Gives a seat to somebody who applied. GX401 unauthorized, GX403 sanctioned, GX404 game_not_found, application_not_found, GX409 invalid_transition, already_member, GX422 enrollment_ended, eligibility_denied, limit_reached, game_full, invalid_name, name_taken.';

CREATE FUNCTION api.admin_application_reject(p_admin text, p_game_id uuid, p_application_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_application applications%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_application := application_end(application_hold(p_game_id, p_application_id, 'reject', 'admin', p_admin), 'rejected');
    PERFORM audit(p_admin, 'admin_application_reject', 'application', p_application_id::text, jsonb_build_object('game_id', p_game_id));
    RETURN application_json(v_application)::text;
END;
$$;
COMMENT ON FUNCTION api.admin_application_reject(text, uuid, uuid) IS
    'Declines an application. GX401 unauthorized, GX404 game_not_found, application_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.admin_invite_create(p_admin text, p_game_id uuid, p_body jsonb, p_code text, p_code_hash bytea) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_invite jsonb;
BEGIN
    PERFORM administrator_require(p_admin);
    PERFORM moment_to_come(p_body, 'expires_at');
    -- Their account is not closed meanwhile: what it releases it looks for once.
    PERFORM FROM accounts AS a WHERE a.user_id = (p_body ->> 'invited_user_id')::uuid FOR SHARE;
    v_game := game_lock(p_game_id);
    IF v_game.game_id IS NULL THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    IF v_game.visibility <> 'public' THEN
        PERFORM fail(422, 'eligibility_denied', 'Invites to a private game are its owner''s to give.');
    END IF;
    v_invite := invite_insert(v_game, NULL, p_body, p_code, p_code_hash);
    PERFORM audit(p_admin, 'admin_invite_create', 'invite', v_invite ->> 'invite_id', jsonb_build_object('game_id', p_game_id));
    RETURN ROW(201, v_invite::text, format('/api/v1/admin/games/%s/invites/%s', p_game_id, v_invite ->> 'invite_id'))::api.reply;
END;
$$;
COMMENT ON FUNCTION api.admin_invite_create(text, uuid, jsonb, text, bytea) IS
    'Offers a seat in a public game to a person, or to whoever has the code of the answer. GX400 invalid_request, GX401 unauthorized, GX404 game_not_found, GX409 invalid_transition, already_member, already_invited, GX422 enrollment_ended, eligibility_denied.';

CREATE FUNCTION api.admin_invite_list(p_admin text, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'invite_list:' || p_game_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
BEGIN
    PERFORM administrator_require(p_admin);
    IF NOT EXISTS (SELECT FROM games AS g WHERE g.game_id = p_game_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    RETURN invites_page(v_list, p_game_id, NULL, p_limit, v_before);
END;
$$;
COMMENT ON FUNCTION api.admin_invite_list(text, uuid, integer, text) IS
    'The invites to a game, newest first. GX400 invalid_cursor, GX401 unauthorized, GX404 game_not_found.';

CREATE FUNCTION api.admin_invite_get(p_admin text, p_game_id uuid, p_invite_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_invite invites%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT * INTO v_invite FROM invites WHERE invite_id = p_invite_id AND game_id = p_game_id;
    IF NOT FOUND THEN
        PERFORM fail(404, 'invite_not_found', 'There is no such invite.');
    END IF;
    RETURN invite_json(v_invite)::text;
END;
$$;
COMMENT ON FUNCTION api.admin_invite_get(text, uuid, uuid) IS
    'An invite to a game. GX401 unauthorized, GX404 invite_not_found.';

CREATE FUNCTION api.admin_invite_revoke(p_admin text, p_game_id uuid, p_invite_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_invite invites%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_game := game_lock(p_game_id);
    SELECT * INTO v_invite FROM invites WHERE invite_id = p_invite_id AND game_id = p_game_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'invite_not_found', 'There is no such invite.');
    END IF;
    PERFORM refuse(invite_refusal(v_game, v_invite, 'revoke', 'admin', p_admin));
    v_invite := invite_end(v_invite, 'revoked');
    PERFORM audit(p_admin, 'admin_invite_revoke', 'invite', p_invite_id::text, jsonb_build_object('game_id', p_game_id));
    RETURN invite_json(v_invite)::text;
END;
$$;
COMMENT ON FUNCTION api.admin_invite_revoke(text, uuid, uuid) IS
    'Takes an invite back. GX401 unauthorized, GX404 invite_not_found, GX409 invalid_transition.';

COMMIT;
