-- Deploy galaxy-backend:worker/diplomail to pg
-- requires: backend/diplomail

-- Why: a message is translated under a lease, by one worker at a time. The attempt is counted before the translator is asked; its
-- number is the fence: a failure that is reported after the lease was taken over moves nothing.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION worker.diplomail_broadcast() RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_broadcast diplomail_broadcasts%ROWTYPE;
    v_game_id uuid;
BEGIN
    -- A broadcast is written by one worker at a time; others take another one.
    SELECT * INTO v_broadcast FROM diplomail_broadcasts AS b ORDER BY b.broadcast_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    v_game_id := v_broadcast.game_ids[v_broadcast.written_count + 1];
    -- What it causes comes from the request that caused it.
    PERFORM set_config('backend.request_id', coalesce(v_broadcast.request_id, ''), true),
            set_config('backend.traceparent', coalesce(v_broadcast.traceparent, ''), true);
    -- Nobody leaves meanwhile.
    PERFORM FROM games AS g WHERE g.game_id = v_game_id FOR SHARE;
    PERFORM diplomail_write(v_game_id, 'admin', NULL, v_broadcast.subject, v_broadcast.body, NULL);
    IF v_broadcast.written_count + 1 = cardinality(v_broadcast.game_ids) THEN
        DELETE FROM diplomail_broadcasts WHERE broadcast_id = v_broadcast.broadcast_id;
    ELSE
        UPDATE diplomail_broadcasts SET written_count = written_count + 1 WHERE broadcast_id = v_broadcast.broadcast_id;
    END IF;
    RETURN v_game_id;
END;
$$;
COMMENT ON FUNCTION worker.diplomail_broadcast() IS
    'Writes the oldest broadcast to its next game, and returns which; null when there is none. Raises nothing of its own.';

CREATE FUNCTION worker.diplomail_claim(p_lease_seconds numeric)
RETURNS TABLE (
    message_id uuid, language text, attempt_no integer, is_spent boolean, subject text, body text, known_subject text, known_body text,
    request_id text, traceparent text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_translation diplomail_translations%ROWTYPE;
BEGIN
    SELECT * INTO v_translation FROM diplomail_translations AS t
     WHERE t.status IN ('pending', 'retrying') AND t.next_attempt_at <= backend.now() AND (t.lease_until IS NULL OR is_over(t.lease_until))
     ORDER BY t.next_attempt_at
     LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE diplomail_translations AS t
       SET attempts = t.attempts + 1, lease_until = backend.now() + make_interval(secs => p_lease_seconds::double precision)
     WHERE t.message_id = v_translation.message_id AND t.language = v_translation.language
    RETURNING t.attempts INTO attempt_no;
    -- Every attempt counts, those too whose worker died: what takes its worker with it each time is not tried for ever.
    is_spent := attempt_no > setting('diplomail_translator_max_attempts');
    SELECT m.message_id, v_translation.language::text, m.subject, m.body, m.request_id, m.traceparent
      INTO STRICT message_id, language, subject, body, request_id, traceparent
      FROM diplomail_messages AS m WHERE m.message_id = v_translation.message_id;
    SELECT t.subject, t.body INTO known_subject, known_body
      FROM diplomail_translations AS t JOIN diplomail_messages AS m USING (message_id)
     WHERE t.text_hash = v_translation.text_hash AND t.language = v_translation.language AND t.status = 'translated'
       AND m.body = diplomail_claim.body AND m.subject IS NOT DISTINCT FROM diplomail_claim.subject
     LIMIT 1;
    RETURN NEXT;
END;
$$;
COMMENT ON FUNCTION worker.diplomail_claim(numeric) IS
    'A translation that is due, with an attempt begun and a lease of so many seconds; none when there is none. One that is_spent is not to be tried any more: it is to be reported as failed. A known_body is what the same text was translated to before. Raises nothing of its own.';

CREATE FUNCTION worker.diplomail_report(
    p_message_id uuid, p_language text, p_attempt_no integer, p_outcome text, p_subject text, p_body text, p_error text
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_translation diplomail_translations%ROWTYPE;
    v_status text;
BEGIN
    -- Nobody leaves the game meanwhile.
    PERFORM FROM games AS g WHERE g.game_id = (SELECT m.game_id FROM diplomail_messages AS m WHERE m.message_id = p_message_id) FOR SHARE;
    SELECT * INTO v_translation FROM diplomail_translations AS t
     WHERE t.message_id = p_message_id AND t.language = p_language
       FOR NO KEY UPDATE;
    -- Who is late decides nothing, except that there is a translation.
    IF NOT FOUND OR v_translation.status NOT IN ('pending', 'retrying')
        OR (v_translation.attempts <> p_attempt_no AND p_outcome <> 'translated') THEN
        RETURN v_translation.status;
    END IF;
    v_status := CASE
        WHEN p_outcome = 'translated' THEN 'translated'
        WHEN p_outcome = 'transient' AND p_attempt_no < setting('diplomail_translator_max_attempts') THEN 'retrying'
        ELSE 'failed'
    END;
    UPDATE diplomail_translations AS t
       SET status = v_status, lease_until = NULL, last_error = left(p_error, 1000),
           subject = CASE v_status WHEN 'translated' THEN p_subject END, body = CASE v_status WHEN 'translated' THEN p_body END,
           next_attempt_at = CASE v_status WHEN 'retrying' THEN backend.now() + retry_after(p_attempt_no) ELSE t.next_attempt_at END
     WHERE t.message_id = p_message_id AND t.language = p_language;
    IF v_status <> 'retrying' THEN
        PERFORM diplomail_deliver(p_message_id, p_language);
    END IF;
    RETURN v_status;
END;
$$;
COMMENT ON FUNCTION worker.diplomail_report(uuid, text, integer, text, text, text, text) IS
    'What came of an attempt: translated, with subject and body; transient, to be tried again while tries are left; failed. Once settled, who waited has the message. Returns the translation''s status then, null for one that is gone. Raises nothing of its own.';

CREATE FUNCTION worker.diplomail_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN diplomail_remove(ARRAY(
        SELECT m.message_id FROM diplomail_messages AS m JOIN games AS g USING (game_id)
         WHERE m.created_at <= backend.now() - setting_interval('diplomail_retention')
           AND g.finished_at <= backend.now() - setting_interval('diplomail_retention')
         ORDER BY m.created_at LIMIT p_limit
           FOR NO KEY UPDATE OF m SKIP LOCKED));
END;
$$;
COMMENT ON FUNCTION worker.diplomail_purge(integer) IS
    'Deletes at most so many messages that are old, of games that ended long ago; returns how many. Raises nothing of its own.';

COMMIT;
