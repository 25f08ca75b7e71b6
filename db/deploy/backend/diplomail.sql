-- Deploy galaxy-backend:backend/diplomail to pg
-- requires: backend/notifications

-- Why: what players write to each other, and what those who run games write to them. A message is written once and has a row for each
-- reader. Who reads another language than it was written in waits for its translation, one for each language, made by a worker under a
-- lease; after the last failure they get the original. What is for many games is written to one after another by a worker, so that no
-- transaction is the longer for it and nobody waits for a game.

BEGIN;
SET LOCAL ROLE backend_owner;

INSERT INTO backend.state_transitions (machine, action, from_state, to_state, description) VALUES
    ('diplomail_translation', 'request', NULL, 'pending', 'Somebody waits for it.'),
    ('diplomail_translation', 'retry', 'pending', 'retrying', 'The translator failed, and is asked again.'),
    ('diplomail_translation', 'retry', 'retrying', 'retrying', 'The translator failed, and is asked again.'),
    ('diplomail_translation', 'translate', 'pending', 'translated', 'It is there.'),
    ('diplomail_translation', 'translate', 'retrying', 'translated', 'It is there.'),
    ('diplomail_translation', 'give-up', 'pending', 'failed', 'The readers get the original.'),
    ('diplomail_translation', 'give-up', 'retrying', 'failed', 'The readers get the original.');

CREATE DOMAIN backend.primary_language AS text CONSTRAINT primary_language_is_a_lowercase_subtag CHECK (VALUE ~ '^[a-z]{2,8}$');
COMMENT ON DOMAIN backend.primary_language IS 'The primary subtag of a BCP 47 tag: the language, without script or region.';

CREATE TABLE backend.diplomail_messages (
    message_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    game_id uuid NOT NULL REFERENCES backend.games,
    kind text NOT NULL CONSTRAINT diplomail_messages_kind_is_known CHECK (kind IN ('personal', 'admin', 'system')),
    sender_user_id uuid REFERENCES backend.accounts,
    sender_race_name text,
    sender_deleted_at timestamptz,
    recipients text[] NOT NULL CONSTRAINT diplomail_messages_are_for_somebody CHECK (cardinality(recipients) >= 1),
    language backend.primary_language NOT NULL,
    subject text CONSTRAINT diplomail_messages_subject_is_one_line CHECK (subject !~ '[\u0001-\u001f\u007f-\u009f\u2028\u2029]'),
    body text NOT NULL CONSTRAINT diplomail_messages_body_is_plain CHECK (body !~ '[\u0001-\u0008\u000b-\u001f\u007f-\u009f]'),
    request_id text,
    traceparent text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    -- For the readers' rows, which carry the game for their lists.
    CONSTRAINT diplomail_messages_have_one_game UNIQUE (message_id, game_id),
    CONSTRAINT diplomail_messages_personal_is_from_a_race
        CHECK (kind <> 'personal' OR (sender_user_id IS NOT NULL AND sender_race_name IS NOT NULL)),
    CONSTRAINT diplomail_messages_system_is_from_nobody CHECK (kind <> 'system' OR (sender_user_id IS NULL AND sender_race_name IS NULL)),
    CONSTRAINT diplomail_messages_are_deleted_by_their_sender CHECK (sender_deleted_at IS NULL OR sender_user_id IS NOT NULL)
);
COMMENT ON TABLE backend.diplomail_messages IS
    'What was written in a game; sender_user_id is null for the administration and the platform itself.';
COMMENT ON COLUMN backend.diplomail_messages.sender_race_name IS 'As it was then; null for who had no seat.';
COMMENT ON COLUMN backend.diplomail_messages.recipients IS 'The race names of those it was written to, as they were then.';
COMMENT ON COLUMN backend.diplomail_messages.sender_deleted_at IS 'The sender does not want it in their list any more.';
COMMENT ON COLUMN backend.diplomail_messages.request_id IS 'The request that caused it; null for none.';
COMMENT ON COLUMN backend.diplomail_messages.traceparent IS 'The W3C trace context of that request.';
CREATE INDEX diplomail_messages_by_game ON backend.diplomail_messages (game_id, message_id);
CREATE INDEX diplomail_messages_by_sender ON backend.diplomail_messages (sender_user_id, game_id, message_id) WHERE sender_user_id IS NOT NULL;
-- What retention lets go.
CREATE INDEX diplomail_messages_by_age ON backend.diplomail_messages (created_at);
CREATE TRIGGER touch BEFORE UPDATE ON backend.diplomail_messages FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.diplomail_translations (
    message_id uuid NOT NULL REFERENCES backend.diplomail_messages,
    language backend.primary_language NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    subject text,
    body text,
    text_hash bigint NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT backend.now(),
    lease_until timestamptz,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (message_id, language),
    CONSTRAINT diplomail_translations_have_a_body_once_translated CHECK ((status = 'translated') = (body IS NOT NULL)),
    CONSTRAINT diplomail_translations_subject_comes_with_the_body CHECK (subject IS NULL OR body IS NOT NULL)
);
COMMENT ON TABLE backend.diplomail_translations IS 'A message in another language: one, however many read it.';
COMMENT ON COLUMN backend.diplomail_translations.text_hash IS 'Of what is translated: the same text in many games is asked for once.';
COMMENT ON COLUMN backend.diplomail_translations.attempts IS 'Those too whose worker died; the fencing number of the lease.';
COMMENT ON COLUMN backend.diplomail_translations.lease_until IS 'A worker has it until then.';
-- What is still to be translated.
CREATE INDEX diplomail_translations_due ON backend.diplomail_translations (next_attempt_at) WHERE status IN ('pending', 'retrying');
-- What was translated before, for the same text again.
CREATE INDEX diplomail_translations_known ON backend.diplomail_translations (text_hash, language) WHERE status = 'translated';
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF status ON backend.diplomail_translations
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('diplomail_translation', 'status');
CREATE TRIGGER touch BEFORE UPDATE ON backend.diplomail_translations FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.diplomail_recipients (
    message_id uuid NOT NULL,
    user_id uuid NOT NULL REFERENCES backend.accounts,
    game_id uuid NOT NULL,
    race_name text NOT NULL,
    language backend.primary_language,
    delivered_at timestamptz,
    read_at timestamptz,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (message_id, user_id),
    CONSTRAINT diplomail_recipients_are_of_the_messages_game FOREIGN KEY (message_id, game_id)
        REFERENCES backend.diplomail_messages (message_id, game_id),
    CONSTRAINT diplomail_recipients_wait_for_a_translation FOREIGN KEY (message_id, language)
        REFERENCES backend.diplomail_translations (message_id, language),
    CONSTRAINT diplomail_recipients_read_what_they_have CHECK (read_at IS NULL OR delivered_at IS NOT NULL),
    CONSTRAINT diplomail_recipients_delete_what_they_have CHECK (deleted_at IS NULL OR delivered_at IS NOT NULL)
);
COMMENT ON TABLE backend.diplomail_recipients IS 'A reader of a message: when they got it, read it, deleted it for themselves.';
COMMENT ON COLUMN backend.diplomail_recipients.language IS 'The translation that it waited for, or waits; null for the original.';
CREATE INDEX diplomail_recipients_by_message_and_game ON backend.diplomail_recipients (message_id, game_id);
CREATE INDEX diplomail_recipients_by_message_and_language ON backend.diplomail_recipients (message_id, language);
-- A reader's list, newest first.
CREATE INDEX diplomail_recipients_by_user ON backend.diplomail_recipients (user_id, game_id, message_id);
-- What a reader has not read: counted without looking at what they have.
CREATE INDEX diplomail_recipients_unread ON backend.diplomail_recipients (user_id, game_id)
    WHERE delivered_at IS NOT NULL AND read_at IS NULL AND deleted_at IS NULL;
CREATE TRIGGER touch BEFORE UPDATE ON backend.diplomail_recipients FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.diplomail_broadcasts (
    broadcast_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    game_ids uuid[] NOT NULL,
    written_count integer NOT NULL DEFAULT 0,
    subject text CONSTRAINT diplomail_broadcasts_subject_is_one_line CHECK (subject !~ '[\u0001-\u001f\u007f-\u009f\u2028\u2029]'),
    body text NOT NULL CONSTRAINT diplomail_broadcasts_body_is_plain CHECK (body !~ '[\u0001-\u0008\u000b-\u001f\u007f-\u009f]'),
    request_id text,
    traceparent text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT diplomail_broadcasts_are_deleted_when_written CHECK (written_count >= 0 AND written_count < cardinality(game_ids))
);
COMMENT ON TABLE backend.diplomail_broadcasts IS
    'What the administration writes to many games and a worker has not written to all of them yet.';
COMMENT ON COLUMN backend.diplomail_broadcasts.game_ids IS 'All of them, in order; games are never deleted.';
COMMENT ON COLUMN backend.diplomail_broadcasts.written_count IS 'So many of them have it. It is counted where the message is written, so none has it twice.';
COMMENT ON COLUMN backend.diplomail_broadcasts.request_id IS 'The request that caused it; null for none.';
COMMENT ON COLUMN backend.diplomail_broadcasts.traceparent IS 'The W3C trace context of that request.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.diplomail_broadcasts FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE FUNCTION backend.language_primary(p_tag text) RETURNS text
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN lower(split_part(p_tag, '-', 1));
COMMENT ON FUNCTION backend.language_primary(text) IS 'The language of a BCP 47 tag, without script or region.';

CREATE FUNCTION backend.diplomail_deliver(p_message_id uuid, p_language text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_message diplomail_messages%ROWTYPE;
    v_user_id uuid;
BEGIN
    SELECT * INTO STRICT v_message FROM diplomail_messages WHERE message_id = p_message_id;
    -- Who was removed meanwhile keeps what they had, and gets no more; but that they were removed they are told.
    DELETE FROM diplomail_recipients AS r
     WHERE r.message_id = p_message_id AND r.delivered_at IS NULL AND r.language IS NOT DISTINCT FROM p_language
       AND v_message.kind <> 'system'
       AND NOT EXISTS (SELECT FROM memberships AS m WHERE m.game_id = r.game_id AND m.user_id = r.user_id AND m.status = 'active');
    FOR v_user_id IN
        UPDATE diplomail_recipients AS r SET delivered_at = backend.now()
         WHERE r.message_id = p_message_id AND r.delivered_at IS NULL AND r.language IS NOT DISTINCT FROM p_language
        RETURNING r.user_id
    LOOP
        PERFORM notification_submit('diplomail.received', p_message_id::text, v_user_id,
                                    jsonb_build_object('game_id', v_message.game_id, 'message_id', p_message_id));
    END LOOP;
END;
$$;
COMMENT ON FUNCTION backend.diplomail_deliver(uuid, text) IS
    'Delivers a message to those who wait for a translation, or for none (null), and tells them; the game is held by the caller, so that nobody leaves it meanwhile.';

CREATE FUNCTION backend.diplomail_write(
    p_game_id uuid, p_kind text, p_sender backend.accounts, p_subject text, p_body text, p_to uuid[]
) RETURNS backend.diplomail_messages
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_message diplomail_messages%ROWTYPE;
    -- What has no person behind it is in English.
    v_language text := coalesce(language_primary(p_sender.preferred_language), 'en');
    v_is_translated boolean := setting('diplomail_translator') > 0;
    v_races text[];
BEGIN
    p_to := ARRAY(SELECT m.user_id FROM memberships AS m JOIN accounts AS a USING (user_id)
                   WHERE m.game_id = p_game_id AND a.deleted_at IS NULL AND m.user_id IS DISTINCT FROM p_sender.user_id
                     AND CASE WHEN p_to IS NULL THEN m.status = 'active' ELSE m.user_id = ANY (p_to) END);
    v_races := ARRAY(SELECT m.race_name FROM memberships AS m WHERE m.game_id = p_game_id AND m.user_id = ANY (p_to) ORDER BY m.race_name);
    IF v_races = '{}' THEN
        RETURN NULL;
    END IF;
    INSERT INTO diplomail_messages (game_id, kind, sender_user_id, sender_race_name, recipients, language, subject, body, request_id, traceparent)
    VALUES (p_game_id, p_kind, p_sender.user_id,
            (SELECT m.race_name FROM memberships AS m WHERE m.game_id = p_game_id AND m.user_id = p_sender.user_id AND m.status = 'active'),
            v_races, v_language, p_subject, p_body, request_id(), traceparent())
    RETURNING * INTO v_message;
    INSERT INTO diplomail_translations (message_id, language, text_hash)
    -- The subject is one line.
    SELECT DISTINCT v_message.message_id, language_primary(a.preferred_language), hashtextextended(concat(p_subject, E'\n', p_body), 0)
      FROM accounts AS a
     WHERE v_is_translated AND a.user_id = ANY (p_to) AND language_primary(a.preferred_language) <> v_language;
    INSERT INTO diplomail_recipients (message_id, user_id, game_id, race_name, language)
    SELECT v_message.message_id, m.user_id, p_game_id, m.race_name, t.language
      FROM memberships AS m JOIN accounts AS a USING (user_id)
      LEFT JOIN diplomail_translations AS t ON t.message_id = v_message.message_id AND t.language = language_primary(a.preferred_language)
     WHERE m.game_id = p_game_id AND m.user_id = ANY (p_to);
    IF EXISTS (SELECT FROM diplomail_translations AS t WHERE t.message_id = v_message.message_id) THEN
        PERFORM job_defer_once('diplomail', 'diplomail_deliver');
    END IF;
    PERFORM diplomail_deliver(v_message.message_id, NULL);
    RETURN v_message;
END;
$$;
COMMENT ON FUNCTION backend.diplomail_write(uuid, text, backend.accounts, text, text, uuid[]) IS
    'Writes a message to people who have, or had, a seat in a game, or to all active members (null); never to its sender, who is null for the administration. Null where there is nobody to read it. Those who wait for no translation have it at once; the game is held by the caller.';

CREATE FUNCTION backend.diplomail_tell(p_game_id uuid, p_event text, p_to uuid[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_texts text[] := CASE p_event
        WHEN 'paused' THEN ARRAY['The game is paused', 'No turns are generated until the game goes on.']
        WHEN 'cancelled' THEN ARRAY['The game is cancelled', 'This game will not be played on.']
        WHEN 'removed' THEN ARRAY['You were removed from the game', 'You have no seat in this game any more. What you were sent before stays here to be read.']
        WHEN 'blocked' THEN ARRAY['You were blocked in the game',
                                  'You have no seat in this game any more and cannot come back to it. What you were sent before stays here to be read.']
    END;
BEGIN
    PERFORM diplomail_write(p_game_id, 'system', NULL, v_texts[1], v_texts[2], p_to);
END;
$$;
COMMENT ON FUNCTION backend.diplomail_tell(uuid, text, uuid[]) IS
    'The platform writes what has happened (paused, cancelled; removed, blocked) to people of a game, or to all active members (null); the game is held by the caller. 23502 for another event.';

CREATE FUNCTION backend.diplomail_remove(p_message_ids uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    -- Whoever reports a translation holds it before its readers.
    PERFORM FROM diplomail_translations AS t WHERE t.message_id = ANY (p_message_ids) ORDER BY t.message_id, t.language FOR NO KEY UPDATE;
    -- In the order in which a reader's end takes theirs.
    PERFORM FROM diplomail_recipients AS r WHERE r.message_id = ANY (p_message_ids) ORDER BY r.message_id, r.user_id FOR NO KEY UPDATE;
    DELETE FROM diplomail_recipients WHERE message_id = ANY (p_message_ids);
    DELETE FROM diplomail_translations WHERE message_id = ANY (p_message_ids);
    DELETE FROM diplomail_messages WHERE message_id = ANY (p_message_ids);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION backend.diplomail_remove(uuid[]) IS
    'Deletes messages for everybody, with all that hangs on them; they are locked by the caller. Returns how many.';

CREATE VIEW backend.invariants_diplomail AS
SELECT 'message_that_its_sender_was_sent' AS invariant, m.message_id AS object_id, m.kind AS details
  FROM backend.diplomail_messages AS m JOIN backend.diplomail_recipients AS r ON r.message_id = m.message_id AND r.user_id = m.sender_user_id
UNION ALL
SELECT 'reader_left_waiting_for_a_translation_that_is_settled', r.message_id, t.status
  FROM backend.diplomail_recipients AS r JOIN backend.diplomail_translations AS t USING (message_id, language)
 WHERE r.delivered_at IS NULL AND t.status IN ('translated', 'failed')
UNION ALL
SELECT 'message_delivered_before_its_translation', r.message_id, t.status
  FROM backend.diplomail_recipients AS r JOIN backend.diplomail_translations AS t USING (message_id, language)
 WHERE r.delivered_at IS NOT NULL AND t.status IN ('pending', 'retrying')
UNION ALL
SELECT 'reader_left_waiting_for_nothing', r.message_id, r.race_name
  FROM backend.diplomail_recipients AS r WHERE r.delivered_at IS NULL AND r.language IS NULL
UNION ALL
SELECT 'reader_who_is_gone', r.message_id, r.race_name
  FROM backend.diplomail_recipients AS r JOIN backend.accounts AS a USING (user_id) WHERE a.deleted_at IS NOT NULL
UNION ALL
SELECT 'reader_whose_race_was_not_written_to', r.message_id, r.race_name
  FROM backend.diplomail_recipients AS r JOIN backend.diplomail_messages AS m USING (message_id)
 WHERE NOT r.race_name = ANY (m.recipients)
UNION ALL
SELECT 'translation_into_its_own_language', t.message_id, t.language
  FROM backend.diplomail_translations AS t JOIN backend.diplomail_messages AS m USING (message_id, language);
COMMENT ON VIEW backend.invariants_diplomail IS 'What must never be seen in diplomatic mail.';

COMMIT;
