-- Deploy galaxy-backend:worker/mail to pg
-- requires: backend/mail_rules

-- Why: a mail is sent under a lease, by one worker at a time. The attempt is written down before anything is sent; its number
-- is the fence: what a worker reports after its lease was taken over is kept as the attempt's outcome, and moves nothing else, unless
-- it is that the mail was sent.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION worker.mail_claim(p_limit integer, p_lease_seconds numeric, p_min_priority integer)
RETURNS TABLE (
    delivery_id uuid, attempt_no integer, template_id text, recipients text[], subject text, body_text text, body_html text,
    request_id text, traceparent text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_expired uuid;
    v_delivery mail_deliveries%ROWTYPE;
    v_max_attempts numeric := setting('mail_max_attempts');
    v_claimed integer := 0;
BEGIN
    -- A code that can no longer be confirmed is not sent late. While a worker has it, its lease is let run out first.
    FOR v_expired IN
        UPDATE mail_deliveries AS d SET status = 'expired', lease_until = NULL
         WHERE d.delivery_id = ANY (ARRAY(
             SELECT e.delivery_id FROM mail_deliveries AS e
              WHERE e.status IN ('pending', 'retrying') AND e.expires_at <= backend.now()
                AND (e.lease_until IS NULL OR is_over(e.lease_until))
              ORDER BY e.expires_at LIMIT greatest(p_limit, 100)
                FOR NO KEY UPDATE SKIP LOCKED))
        RETURNING d.delivery_id
    LOOP
        PERFORM mail_erase(v_expired);
    END LOOP;

    WHILE v_claimed < p_limit LOOP
        SELECT * INTO v_delivery FROM mail_deliveries AS d
         WHERE d.status IN ('pending', 'retrying') AND d.next_attempt_at <= backend.now()
           AND (d.lease_until IS NULL OR is_over(d.lease_until)) AND NOT is_over(d.expires_at)
           AND d.priority >= p_min_priority
         ORDER BY d.priority DESC, d.next_attempt_at
         LIMIT 1
           FOR NO KEY UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        request_id := v_delivery.request_id;
        traceparent := v_delivery.traceparent;
        IF v_delivery.attempts >= v_max_attempts THEN
            -- Every attempt counts, those too whose worker died: what takes its worker with it each time is not tried for ever.
            PERFORM mail_give_up(v_delivery.delivery_id, 'nothing is known of the last attempt');
            -- The worker is told, so that an operator is.
            delivery_id := v_delivery.delivery_id;
            template_id := v_delivery.template_id;
            attempt_no := NULL;
            recipients := NULL;
            subject := NULL;
            body_text := NULL;
            body_html := NULL;
            RETURN NEXT;
            CONTINUE;
        END IF;
        UPDATE mail_deliveries AS d
           SET attempts = d.attempts + 1, last_attempt_no = d.last_attempt_no + 1,
               lease_until = backend.now() + make_interval(secs => p_lease_seconds::double precision)
         WHERE d.delivery_id = v_delivery.delivery_id
        RETURNING d.last_attempt_no INTO attempt_no;
        INSERT INTO mail_attempts (delivery_id, attempt_no) VALUES (v_delivery.delivery_id, attempt_no);
        SELECT p.subject, p.body_text, p.body_html INTO STRICT subject, body_text, body_html
          FROM mail_payloads AS p WHERE p.payload_id = v_delivery.payload_id;
        delivery_id := v_delivery.delivery_id;
        template_id := v_delivery.template_id;
        recipients := ARRAY(SELECT r.address FROM mail_recipients AS r WHERE r.delivery_id = v_delivery.delivery_id ORDER BY r.address);
        v_claimed := v_claimed + 1;
        RETURN NEXT;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION worker.mail_claim(integer, numeric, integer) IS
    'At most so many mails of at least this priority that are due, the most urgent first, each with an attempt begun and a lease; and those that were given up on the way, without an attempt_no. Raises nothing of its own.';

CREATE FUNCTION worker.mail_keep(p_delivery_id uuid, p_attempt_no integer, p_lease_seconds numeric) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE mail_deliveries AS d SET lease_until = backend.now() + make_interval(secs => p_lease_seconds::double precision)
     WHERE d.delivery_id = p_delivery_id AND d.last_attempt_no = p_attempt_no AND d.status IN ('pending', 'retrying')
       AND d.lease_until IS NOT NULL;
    RETURN FOUND;
END;
$$;
COMMENT ON FUNCTION worker.mail_keep(uuid, integer, numeric) IS
    'Prolongs the lease of an attempt that still goes on; false when the mail is not this attempt''s any more. Raises nothing of its own.';

CREATE FUNCTION worker.mail_report(p_delivery_id uuid, p_attempt_no integer, p_outcome text, p_error text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_delivery mail_deliveries%ROWTYPE;
    v_status text;
BEGIN
    SELECT * INTO v_delivery FROM mail_deliveries AS d WHERE d.delivery_id = p_delivery_id FOR NO KEY UPDATE;
    UPDATE mail_attempts AS a SET outcome = p_outcome, error = left(p_error, 1000), finished_at = backend.now()
     WHERE a.delivery_id = p_delivery_id AND a.attempt_no = p_attempt_no AND a.finished_at IS NULL;
    -- Who is late decides nothing, except that it was sent: then nobody need send it again.
    IF NOT FOUND
        OR (p_outcome = 'sent' AND v_delivery.status NOT IN ('pending', 'retrying', 'dead_lettered'))
        OR (p_outcome <> 'sent' AND (v_delivery.status NOT IN ('pending', 'retrying') OR v_delivery.last_attempt_no <> p_attempt_no)) THEN
        RETURN v_delivery.status;
    END IF;
    v_status := CASE
        WHEN p_outcome = 'sent' THEN 'sent'
        WHEN p_outcome IN ('transient', 'outcome_unknown') AND v_delivery.attempts < setting('mail_max_attempts') THEN 'retrying'
        ELSE 'dead_lettered'
    END;
    IF v_status = 'dead_lettered' THEN
        PERFORM mail_give_up(p_delivery_id, coalesce(p_error, p_outcome));
        RETURN v_status;
    END IF;
    UPDATE mail_deliveries AS d
       SET status = v_status, lease_until = NULL,
           next_attempt_at = CASE v_status WHEN 'retrying' THEN backend.now() + retry_after(v_delivery.attempts) ELSE d.next_attempt_at END
     WHERE d.delivery_id = p_delivery_id;
    IF v_status = 'sent' THEN
        DELETE FROM mail_dead_letters WHERE delivery_id = p_delivery_id;
        PERFORM mail_erase(p_delivery_id);
    END IF;
    RETURN v_status;
END;
$$;
COMMENT ON FUNCTION worker.mail_report(uuid, integer, text, text) IS
    'What came of an attempt: sent, transient, permanent, or outcome_unknown where the relay''s answer was lost; returns the delivery''s status then. 23514 for another outcome.';

CREATE FUNCTION worker.mail_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_ids uuid[];
    v_payload_ids uuid[];
BEGIN
    SELECT array_agg(o.delivery_id), array_agg(o.payload_id) INTO v_ids, v_payload_ids
      FROM (SELECT d.delivery_id, d.payload_id FROM mail_deliveries AS d
             WHERE d.status NOT IN ('pending', 'retrying') AND d.updated_at <= backend.now() - setting_interval('mail_retention')
               AND (d.status <> 'dead_lettered' OR d.updated_at <= backend.now() - setting_interval('dead_letter_retention'))
             ORDER BY d.updated_at LIMIT p_limit
               FOR NO KEY UPDATE SKIP LOCKED) AS o;
    DELETE FROM mail_dead_letters WHERE delivery_id = ANY (v_ids);
    DELETE FROM mail_attempts WHERE delivery_id = ANY (v_ids);
    DELETE FROM mail_recipients WHERE delivery_id = ANY (v_ids);
    DELETE FROM mail_deliveries WHERE delivery_id = ANY (v_ids);
    DELETE FROM mail_payloads WHERE payload_id = ANY (v_payload_ids);
    RETURN coalesce(cardinality(v_ids), 0);
END;
$$;
COMMENT ON FUNCTION worker.mail_purge(integer) IS
    'Deletes at most so many mails that have been done with for long; returns how many. Raises nothing of its own.';

COMMIT;
