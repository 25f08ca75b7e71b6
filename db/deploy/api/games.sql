-- Deploy galaxy-backend:api/games to pg
-- requires: backend/game_rules
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.game_create(p_user_id uuid, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_limit integer;
BEGIN
    PERFORM account_require(p_user_id);
    PERFORM account_lock(p_user_id);
    v_game := game_from_body(NULL, p_body);
    PERFORM sanction_refuse(p_user_id, 'private_game_create_block');
    IF p_body ? 'race_name' THEN
        PERFORM sanction_refuse(p_user_id, 'game_join_block');
    END IF;
    v_limit := account_limit(p_user_id, 'max_owned_private_games');
    IF (SELECT count(*) FROM games AS g
         WHERE g.owner_user_id = p_user_id AND g.visibility = 'private' AND g.status NOT IN ('finished', 'cancelled')) >= v_limit THEN
        PERFORM fail(422, 'limit_reached', 'This account owns as many games as it may.',
                     jsonb_build_object('limit', 'max_owned_private_games', 'value', v_limit));
    END IF;
    v_game := game_insert(v_game, 'private', p_user_id, 'user', p_user_id::text);
    IF p_body ? 'race_name' THEN
        PERFORM seat_take(v_game, p_user_id, p_body ->> 'race_name');
    END IF;
    RETURN ROW(201, game_json(v_game)::text, '/api/v1/user/lobby/games/' || v_game.game_id)::api.reply;
END;
$$;
COMMENT ON FUNCTION api.game_create(uuid, jsonb) IS
    'Creates a private game of the caller, with a seat for them if a race name is given. GX400 invalid_request, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, GX409 already_member, GX422 limit_reached, eligibility_denied, game_full, invalid_name, name_taken, engine_version_unavailable.';

CREATE FUNCTION api.game_get(p_user_id uuid, p_game_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM account_require(p_user_id);
    RETURN game_json(game_find(p_game_id, p_user_id))::text;
END;
$$;
COMMENT ON FUNCTION api.game_get(uuid, uuid) IS
    'A game that the caller may see. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, game_not_found.';

CREATE FUNCTION api.game_list(p_user_id uuid, p_limit integer, p_cursor text, p_status text[], p_q text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := concat_ws(':', 'game_list', p_status::text, p_q);
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM account_require(p_user_id);
    SELECT array_agg(game_json(r) ORDER BY r.game_id DESC), array_agg(r.game_id::text ORDER BY r.game_id DESC) INTO v_items, v_keys
      FROM games_newest('public', p_status, NULL, p_q, v_before, p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.game_list(uuid, integer, text, text[], text) IS
    'The public games, newest first, by status and a part of the name. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

CREATE FUNCTION api.game_update(p_user_id uuid, p_game_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
BEGIN
    PERFORM account_require(p_user_id);
    -- What is malformed whatever the game is.
    PERFORM game_from_body(NULL, p_body);
    v_game := game_lock(p_game_id);
    IF v_game.game_id IS NULL OR NOT game_is_visible(v_game, p_user_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    ELSIF v_game.owner_user_id IS DISTINCT FROM p_user_id THEN
        PERFORM fail(403, 'forbidden', 'Only those who run this game may do that.');
    END IF;
    PERFORM sanction_refuse(p_user_id, 'private_game_manage_block');
    RETURN game_json(game_edit(v_game, p_body))::text;
END;
$$;
COMMENT ON FUNCTION api.game_update(uuid, uuid, jsonb) IS
    'Changes the caller''s game as far as its state allows. GX400 invalid_request, GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.game_action_list(p_user_id uuid, p_game_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM account_require(p_user_id);
    RETURN game_actions(game_find(p_game_id, p_user_id), 'user', p_user_id::text)::text;
END;
$$;
COMMENT ON FUNCTION api.game_action_list(uuid, uuid) IS
    'Every action of the game machine: whether the caller may do it to a game now, or why not. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, game_not_found.';

CREATE FUNCTION api.my_game_list(p_user_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'my_game_list:' || p_user_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_account accounts%ROWTYPE := account_require(p_user_id);
    v_items jsonb[];
    v_keys text[];
BEGIN
    SELECT array_agg(game_json(r) ORDER BY r.game_id DESC), array_agg(r.game_id::text ORDER BY r.game_id DESC) INTO v_items, v_keys
      FROM (SELECT g.* FROM games AS g
             WHERE g.game_id IN (
                       SELECT o.game_id FROM games AS o WHERE o.owner_user_id = v_account.user_id
                       UNION
                       SELECT m.game_id FROM memberships AS m WHERE m.user_id = v_account.user_id AND m.status = 'active')
               AND (v_before IS NULL OR g.game_id < v_before)
             ORDER BY g.game_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.my_game_list(uuid, integer, text) IS
    'The games that the caller owns or sits in, newest first. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

CREATE FUNCTION api.game_open_enrollment(p_user_id uuid, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command(p_game_id, 'open-enrollment', p_user_id);
END;
$$;
COMMENT ON FUNCTION api.game_open_enrollment(uuid, uuid) IS
    'Opens enrolment. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, GX409 invalid_transition, GX422 engine_version_unavailable, enrollment_ended.';

CREATE FUNCTION api.game_ready_to_start(p_user_id uuid, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command(p_game_id, 'ready-to-start', p_user_id);
END;
$$;
COMMENT ON FUNCTION api.game_ready_to_start(uuid, uuid) IS
    'Closes enrolment of a game with enough members. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, GX409 invalid_transition, GX422 not_enough_members.';

CREATE FUNCTION api.game_start(p_user_id uuid, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command(p_game_id, 'start', p_user_id);
END;
$$;
COMMENT ON FUNCTION api.game_start(uuid, uuid) IS
    'Starts a game; a job does it. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, GX409 invalid_transition, GX422 engine_version_unavailable, not_enough_members, GX503 runtime_busy.';

CREATE FUNCTION api.game_retry_start(p_user_id uuid, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command(p_game_id, 'retry-start', p_user_id);
END;
$$;
COMMENT ON FUNCTION api.game_retry_start(uuid, uuid) IS
    'Tries once more to start a game. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, GX409 invalid_transition, GX422 engine_version_unavailable, not_enough_members, GX503 runtime_busy.';

CREATE FUNCTION api.game_pause(p_user_id uuid, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command(p_game_id, 'pause', p_user_id, 'by_owner');
END;
$$;
COMMENT ON FUNCTION api.game_pause(uuid, uuid) IS
    'Pauses a running game. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.game_resume(p_user_id uuid, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command(p_game_id, 'resume', p_user_id);
END;
$$;
COMMENT ON FUNCTION api.game_resume(uuid, uuid) IS
    'Lets a paused game go on. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, GX409 invalid_transition, GX422 engine_not_healthy.';

CREATE FUNCTION api.game_cancel(p_user_id uuid, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN game_command(p_game_id, 'cancel', p_user_id);
END;
$$;
COMMENT ON FUNCTION api.game_cancel(uuid, uuid) IS
    'Cancels a game that has not started. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.game_history_list(p_user_id uuid, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_list text := 'game_history_list:' || p_game_id;
    v_after uuid := cursor_read_id(v_list, p_cursor);
BEGIN
    PERFORM account_require(p_user_id);
    v_game := game_find(p_game_id, p_user_id);
    IF v_game.owner_user_id IS DISTINCT FROM p_user_id AND NOT EXISTS (
        SELECT FROM memberships AS m WHERE m.game_id = p_game_id AND m.user_id = p_user_id AND m.status = 'active'
    ) THEN
        PERFORM fail(403, 'forbidden', 'Only its members read the history of a game.');
    END IF;
    RETURN game_history_page(v_list, p_game_id, p_limit, v_after, false);
END;
$$;
COMMENT ON FUNCTION api.game_history_list(uuid, uuid, integer, text) IS
    'What has happened to a game, oldest first, for its members. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found.';

COMMIT;
