-- Deploy galaxy-backend:backend/diplomail_rules to pg
-- requires: backend/game_rules

-- Why: who may write to whom, and what of it somebody reads. Whoever sends holds the game, so that nobody leaves it between the
-- look at its members and the delivery.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.diplomail_text_refuse(p_body jsonb) RETURNS void
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_problems jsonb;
BEGIN
    SELECT jsonb_agg(jsonb_build_object('path', t.path, 'problem', CASE WHEN is_seen(t.value) THEN format('is over %s bytes', t.most) ELSE 'has nothing to be seen' END))
      INTO v_problems
      FROM (VALUES ('subject', p_body ->> 'subject', setting('diplomail_max_subject_bytes')),
                   ('body', p_body ->> 'body', setting('diplomail_max_body_bytes'))) AS t (path, value, most)
     WHERE octet_length(t.value) > t.most OR NOT is_seen(t.value);
    IF v_problems IS NOT NULL THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.', v_problems);
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.diplomail_text_refuse(jsonb) IS
    'Refuses a subject or a body that is over-long in bytes of UTF-8, or of which nothing is seen. GX400 invalid_request.';

CREATE FUNCTION backend.diplomail_readers(p_game_id uuid, p_sender_user_id uuid, p_recipients jsonb) RETURNS uuid[]
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_readers uuid[];
    v_unknown jsonb;
BEGIN
    IF jsonb_typeof(p_recipients) = 'string' THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(DISTINCT m.user_id), jsonb_agg(n.race_name ORDER BY n.place) FILTER (WHERE m.user_id IS NULL)
      INTO v_readers, v_unknown
      FROM jsonb_array_elements_text(p_recipients) WITH ORDINALITY AS n (race_name, place)
      LEFT JOIN (SELECT s.user_id, s.race_name_canonical
                   FROM memberships AS s JOIN accounts AS a USING (user_id)
                  WHERE s.game_id = p_game_id AND s.status = 'active' AND a.deleted_at IS NULL
                    AND s.user_id IS DISTINCT FROM p_sender_user_id) AS m
        ON m.race_name_canonical = race_name_canonical(n.race_name);
    IF v_unknown IS NOT NULL THEN
        PERFORM fail(422, 'recipient_not_found', 'Not all of these are other members of this game.', jsonb_build_object('recipients', v_unknown));
    END IF;
    RETURN v_readers;
END;
$$;
COMMENT ON FUNCTION backend.diplomail_readers(uuid, uuid, jsonb) IS
    'Whom the recipients of a request are: active members of the game by their race names, however written; null for "all". GX422 recipient_not_found.';

CREATE FUNCTION backend.diplomail_send(p_game_id uuid, p_kind text, p_sender backend.accounts, p_body jsonb) RETURNS backend.diplomail_messages
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_message diplomail_messages%ROWTYPE := diplomail_write(
        p_game_id, p_kind, p_sender, p_body ->> 'subject', p_body ->> 'body',
        diplomail_readers(p_game_id, p_sender.user_id, p_body -> 'recipients'));
BEGIN
    IF v_message.message_id IS NULL THEN
        PERFORM fail(422, 'recipient_not_found', 'There is nobody else in this game.', '{"recipients": []}');
    END IF;
    RETURN v_message;
END;
$$;
COMMENT ON FUNCTION backend.diplomail_send(uuid, text, backend.accounts, jsonb) IS
    'Sends what a request says; the sender is null for the administration. The game is held by the caller. GX422 recipient_not_found.';

CREATE FUNCTION backend.diplomail_json(p_message backend.diplomail_messages, p_language text, p_read_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'message_id', p_message.message_id,
    'game_id', p_message.game_id,
    'kind', p_message.kind,
    'sender_race_name', p_message.sender_race_name,
    'recipients', p_message.recipients,
    'subject', p_message.subject,
    'body', p_message.body,
    'language', p_message.language,
    'translation', (SELECT jsonb_build_object('language', t.language, 'subject', t.subject, 'body', t.body)
                      FROM backend.diplomail_translations AS t
                     WHERE t.message_id = p_message.message_id AND t.language = backend.language_primary(p_language) AND t.status = 'translated'),
    'sent_at', backend.ts(p_message.created_at),
    'read_at', backend.ts(p_read_at)
);
COMMENT ON FUNCTION backend.diplomail_json(backend.diplomail_messages, text, timestamptz) IS
    'The diplomatic message object of the contract, for whoever reads a language (null: as it was written) and has read it then.';

CREATE FUNCTION backend.diplomail_game_find(p_game_id uuid, p_user_id uuid) RETURNS void
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    -- Also whoever had a seat.
    IF NOT EXISTS (SELECT FROM memberships AS m WHERE m.game_id = p_game_id AND m.user_id = p_user_id) THEN
        PERFORM game_find(p_game_id, p_user_id);
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.diplomail_game_find(uuid, uuid) IS
    'Refuses who may neither see a game nor ever had a seat in it. GX404 game_not_found.';

COMMIT;
