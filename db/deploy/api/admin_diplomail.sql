-- Deploy galaxy-backend:api/admin_diplomail to pg
-- requires: backend/diplomail_rules

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.admin_diplomail_send(p_admin text, p_game_id uuid, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_message diplomail_messages%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    PERFORM diplomail_text_refuse(p_body);
    -- Nobody leaves meanwhile.
    PERFORM FROM games AS g WHERE g.game_id = p_game_id FOR SHARE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    v_message := diplomail_send(p_game_id, 'admin', NULL, p_body);
    PERFORM audit(p_admin, 'admin_diplomail_send', 'game', p_game_id::text,
                  jsonb_build_object('message_id', v_message.message_id, 'recipients', v_message.recipients));
    RETURN ROW(201, diplomail_json(v_message, NULL, NULL)::text, format('/api/v1/admin/games/%s/mail/messages', p_game_id))::api.reply;
END;
$$;
COMMENT ON FUNCTION api.admin_diplomail_send(text, uuid, jsonb) IS
    'Writes to members of a game from the administration. GX400 invalid_request, GX401 unauthorized, GX404 game_not_found, GX422 recipient_not_found.';

CREATE FUNCTION api.admin_diplomail_list(p_admin text, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'admin_diplomail_list:' || p_game_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    IF NOT EXISTS (SELECT FROM games AS g WHERE g.game_id = p_game_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    SELECT array_agg(diplomail_json(i, NULL, NULL) ORDER BY i.message_id DESC), array_agg(i.message_id::text ORDER BY i.message_id DESC)
      INTO v_items, v_keys
      FROM (SELECT m.* FROM diplomail_messages AS m
             WHERE m.game_id = p_game_id AND (v_before IS NULL OR m.message_id < v_before)
             ORDER BY m.message_id DESC
             LIMIT p_limit + 1) AS i;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.admin_diplomail_list(text, uuid, integer, text) IS
    'All that was written in a game, newest first, as it was written. GX400 invalid_cursor, GX401 unauthorized, GX404 game_not_found.';

CREATE FUNCTION api.admin_diplomail_broadcast(p_admin text, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_is_to_all boolean := jsonb_typeof(p_body -> 'game_ids') = 'string';
    v_named uuid[];
    v_game_ids uuid[];
BEGIN
    PERFORM administrator_require(p_admin);
    PERFORM diplomail_text_refuse(p_body);
    IF NOT v_is_to_all THEN
        v_named := ARRAY(SELECT i.game_id::uuid FROM jsonb_array_elements_text(p_body -> 'game_ids') AS i (game_id));
        IF EXISTS (SELECT FROM unnest(v_named) AS i (game_id) WHERE NOT EXISTS (SELECT FROM games AS g WHERE g.game_id = i.game_id)) THEN
            PERFORM fail(404, 'game_not_found', 'Not all of these are games.');
        END IF;
    END IF;
    v_game_ids := ARRAY(
        SELECT g.game_id FROM games AS g
         WHERE CASE WHEN v_is_to_all THEN g.status = 'running' ELSE g.game_id = ANY (v_named) END
           AND EXISTS (SELECT FROM memberships AS m JOIN accounts AS a USING (user_id)
                        WHERE m.game_id = g.game_id AND m.status = 'active' AND a.deleted_at IS NULL)
         ORDER BY g.game_id);
    IF v_game_ids <> '{}' THEN
        INSERT INTO diplomail_broadcasts (game_ids, subject, body, request_id, traceparent)
        VALUES (v_game_ids, p_body ->> 'subject', p_body ->> 'body', request_id(), traceparent());
        PERFORM job_defer_once('diplomail', 'diplomail_deliver');
    END IF;
    PERFORM audit(p_admin, 'admin_diplomail_broadcast', 'diplomail', 'broadcast',
                  jsonb_build_object('game_ids', p_body -> 'game_ids', 'messages', cardinality(v_game_ids)));
    RETURN jsonb_build_object('messages', cardinality(v_game_ids))::text;
END;
$$;
COMMENT ON FUNCTION api.admin_diplomail_broadcast(text, jsonb) IS
    'Writes to all members of several games, or of all that run; a job does it, game by game. GX400 invalid_request, GX401 unauthorized, GX404 game_not_found.';

CREATE FUNCTION api.admin_diplomail_purge(p_admin text, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_days integer := (p_body ->> 'finished_more_than_days')::numeric::integer;
    v_deleted integer;
BEGIN
    PERFORM administrator_require(p_admin);
    -- So many at once that it is done in time.
    v_deleted := diplomail_remove(ARRAY(
        SELECT m.message_id FROM diplomail_messages AS m JOIN games AS g USING (game_id)
         WHERE g.finished_at < backend.now() - make_interval(days => v_days)
         ORDER BY m.message_id LIMIT 2000
           FOR NO KEY UPDATE OF m));
    PERFORM audit(p_admin, 'admin_diplomail_purge', 'diplomail', 'purge',
                  jsonb_build_object('finished_more_than_days', v_days, 'deleted', v_deleted));
    RETURN jsonb_build_object('deleted', v_deleted)::text;
END;
$$;
COMMENT ON FUNCTION api.admin_diplomail_purge(text, jsonb) IS
    'Deletes the mail of games that ended more than so many days ago, for everybody; at most 2,000 messages at once, the oldest first. GX401 unauthorized.';

COMMIT;
