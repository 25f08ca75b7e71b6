-- Deploy galaxy-backend:api/diplomail to pg
-- requires: backend/diplomail_rules

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.diplomail_send(p_user_id uuid, p_game_id uuid, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
    v_game games%ROWTYPE;
    v_message diplomail_messages%ROWTYPE;
    v_is_to_all boolean := jsonb_typeof(p_body -> 'recipients') = 'string';
    v_is_owner boolean;
    v_is_member boolean;
    v_kind text := p_body ->> 'kind';
BEGIN
    PERFORM account_require(p_user_id);
    PERFORM diplomail_text_refuse(p_body);
    -- What is taken from the sender, and the end of their account, come before or after.
    PERFORM FROM accounts AS a WHERE a.user_id = p_user_id FOR SHARE;
    v_account := account_require(p_user_id);
    -- Nobody leaves meanwhile; others write beside.
    SELECT * INTO v_game FROM games WHERE game_id = p_game_id FOR SHARE;
    IF NOT FOUND OR NOT game_is_visible(v_game, p_user_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    v_is_owner := v_game.owner_user_id IS NOT DISTINCT FROM p_user_id;
    v_is_member := EXISTS (SELECT FROM memberships AS m WHERE m.game_id = p_game_id AND m.user_id = p_user_id AND m.status = 'active');
    -- An owner who says nothing else writes to one race as another, and to all as who runs the game.
    v_kind := coalesce(v_kind, CASE WHEN v_is_owner AND (v_is_to_all OR NOT v_is_member) THEN 'admin' ELSE 'personal' END);
    IF NOT (CASE v_kind WHEN 'admin' THEN v_is_owner ELSE v_is_member END) THEN
        PERFORM fail(403, 'forbidden', 'Only members of a game write to each other, and only who runs it writes as such.');
    END IF;
    PERFORM sanction_refuse(p_user_id, 'diplomail_block');
    IF v_kind = 'admin' THEN
        PERFORM sanction_refuse(p_user_id, 'private_game_manage_block');
    ELSIF v_is_to_all AND NOT EXISTS (SELECT FROM entitlement_in_force(p_user_id) AS e JOIN entitlement_tiers AS t ON t.tier = e.tier WHERE t.is_paid) THEN
        PERFORM fail(403, 'tier_required', 'Only a paid tier writes to all at once.');
    END IF;
    v_message := diplomail_send(p_game_id, v_kind, v_account, p_body);
    RETURN ROW(201, diplomail_json(v_message, NULL, NULL)::text,
               format('/api/v1/user/games/%s/mail/messages/%s', p_game_id, v_message.message_id))::api.reply;
END;
$$;
COMMENT ON FUNCTION api.diplomail_send(uuid, uuid, jsonb) IS
    'Writes to members of a game, as one of them or as its owner. GX400 invalid_request, GX403 account_blocked, account_deleted, sanctioned, forbidden, tier_required, GX404 account_not_found, game_not_found, GX422 recipient_not_found.';

CREATE FUNCTION api.diplomail_inbox_list(p_user_id uuid, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
    v_list text := concat_ws(':', 'diplomail_inbox_list', p_user_id, p_game_id);
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    v_account := account_require(p_user_id);
    PERFORM diplomail_game_find(p_game_id, p_user_id);
    SELECT array_agg(diplomail_json(m, v_account.preferred_language, i.read_at) ORDER BY i.message_id DESC),
           array_agg(i.message_id::text ORDER BY i.message_id DESC)
      INTO v_items, v_keys
      FROM (SELECT r.message_id, r.read_at FROM diplomail_recipients AS r
             WHERE r.user_id = p_user_id AND r.game_id = p_game_id AND r.delivered_at IS NOT NULL AND r.deleted_at IS NULL
               AND (v_before IS NULL OR r.message_id < v_before)
             ORDER BY r.message_id DESC
             LIMIT p_limit + 1) AS i
      JOIN diplomail_messages AS m USING (message_id);
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.diplomail_inbox_list(uuid, uuid, integer, text) IS
    'What the caller was sent in a game, newest first; also after they have left it. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, game_not_found.';

CREATE FUNCTION api.diplomail_sent_list(p_user_id uuid, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
    v_list text := concat_ws(':', 'diplomail_sent_list', p_user_id, p_game_id);
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    v_account := account_require(p_user_id);
    PERFORM diplomail_game_find(p_game_id, p_user_id);
    SELECT array_agg(diplomail_json(i, v_account.preferred_language, NULL) ORDER BY i.message_id DESC),
           array_agg(i.message_id::text ORDER BY i.message_id DESC)
      INTO v_items, v_keys
      FROM (SELECT m.* FROM diplomail_messages AS m
             WHERE m.sender_user_id = p_user_id AND m.game_id = p_game_id AND m.sender_deleted_at IS NULL
               AND (v_before IS NULL OR m.message_id < v_before)
             ORDER BY m.message_id DESC
             LIMIT p_limit + 1) AS i;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.diplomail_sent_list(uuid, uuid, integer, text) IS
    'What the caller wrote in a game, newest first; also after they have left it. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, game_not_found.';

CREATE FUNCTION api.diplomail_get(p_user_id uuid, p_game_id uuid, p_message_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
    v_message jsonb;
BEGIN
    v_account := account_require(p_user_id);
    SELECT diplomail_json(m, v_account.preferred_language, r.read_at) INTO v_message
      FROM diplomail_messages AS m
      LEFT JOIN diplomail_recipients AS r
        ON r.message_id = m.message_id AND r.user_id = p_user_id AND r.delivered_at IS NOT NULL AND r.deleted_at IS NULL
     WHERE m.message_id = p_message_id AND m.game_id = p_game_id
       AND (r.user_id IS NOT NULL OR (m.sender_user_id = p_user_id AND m.sender_deleted_at IS NULL));
    IF NOT FOUND THEN
        PERFORM fail(404, 'message_not_found', 'There is no such message.');
    END IF;
    RETURN v_message::text;
END;
$$;
COMMENT ON FUNCTION api.diplomail_get(uuid, uuid, uuid) IS
    'A message that the caller was sent, or wrote. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, message_not_found.';

CREATE FUNCTION api.diplomail_read(p_user_id uuid, p_game_id uuid, p_message_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
    v_read_at timestamptz;
BEGIN
    v_account := account_require(p_user_id);
    UPDATE diplomail_recipients AS r SET read_at = coalesce(r.read_at, backend.now())
     WHERE r.message_id = p_message_id AND r.user_id = p_user_id AND r.game_id = p_game_id
       AND r.delivered_at IS NOT NULL AND r.deleted_at IS NULL
    RETURNING r.read_at INTO v_read_at;
    IF NOT FOUND THEN
        PERFORM fail(404, 'message_not_found', 'There is no such message.');
    END IF;
    RETURN (SELECT diplomail_json(m, v_account.preferred_language, v_read_at)::text
              FROM diplomail_messages AS m WHERE m.message_id = p_message_id);
END;
$$;
COMMENT ON FUNCTION api.diplomail_read(uuid, uuid, uuid) IS
    'Marks a message that the caller was sent as read; again changes nothing. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, message_not_found.';

CREATE FUNCTION api.diplomail_delete(p_user_id uuid, p_game_id uuid, p_message_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM account_require(p_user_id);
    UPDATE diplomail_recipients AS r SET deleted_at = backend.now()
     WHERE r.message_id = p_message_id AND r.user_id = p_user_id AND r.game_id = p_game_id
       AND r.delivered_at IS NOT NULL AND r.deleted_at IS NULL;
    IF NOT FOUND THEN
        UPDATE diplomail_messages AS m SET sender_deleted_at = backend.now()
         WHERE m.message_id = p_message_id AND m.sender_user_id = p_user_id AND m.game_id = p_game_id AND m.sender_deleted_at IS NULL;
        IF NOT FOUND THEN
            PERFORM fail(404, 'message_not_found', 'There is no such message.');
        END IF;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION api.diplomail_delete(uuid, uuid, uuid) IS
    'Deletes a message that the caller was sent, or wrote, for the caller alone. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, message_not_found.';

CREATE FUNCTION api.diplomail_unread_list(p_user_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM account_require(p_user_id);
    RETURN (SELECT jsonb_build_object('items', coalesce(jsonb_agg(jsonb_build_object('game_id', u.game_id, 'unread_count', u.unread_count)
                                                                  ORDER BY u.game_id DESC), '[]'))::text
              FROM (SELECT r.game_id, count(*) AS unread_count FROM diplomail_recipients AS r
                     WHERE r.user_id = p_user_id AND r.delivered_at IS NOT NULL AND r.read_at IS NULL AND r.deleted_at IS NULL
                     GROUP BY r.game_id) AS u);
END;
$$;
COMMENT ON FUNCTION api.diplomail_unread_list(uuid) IS
    'How much the caller has not read, by game, newest first; games without any are left out. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

COMMIT;
