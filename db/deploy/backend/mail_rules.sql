-- Deploy galaxy-backend:backend/mail_rules to pg
-- requires: backend/mail
-- requires: backend/notifications

-- Why: what becomes of a mail that cannot be delivered, and how administrators see the outbox.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.mail_give_up(p_delivery_id uuid, p_reason text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_delivery mail_deliveries%ROWTYPE;
BEGIN
    UPDATE mail_deliveries SET status = 'dead_lettered', lease_until = NULL
     WHERE delivery_id = p_delivery_id
    RETURNING * INTO STRICT v_delivery;
    INSERT INTO mail_dead_letters (delivery_id, reason) VALUES (p_delivery_id, left(p_reason, 1000));
    PERFORM mail_erase(p_delivery_id);
    -- Never about the mail that would say so, and not without end: when a relay is away for long, everything that waits is given up.
    IF v_delivery.template_id <> 'mail.dead_lettered'
        AND (SELECT count(*) FROM notifications AS n
              WHERE n.kind = 'mail.dead_lettered' AND n.created_at > backend.now() - interval '1 hour') < setting('dead_letter_notices') THEN
        PERFORM notification_submit(
            'mail.dead_lettered', format('%s:%s', p_delivery_id, v_delivery.last_attempt_no), NULL,
            jsonb_build_object('delivery_id', p_delivery_id, 'template_id', v_delivery.template_id));
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.mail_give_up(uuid, text) IS
    'Makes a mail that the caller has locked a dead letter, and tells the administrators, unless they were told of many within the hour.';

CREATE FUNCTION backend.mail_resend(p_delivery_id uuid) RETURNS backend.mail_deliveries
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_delivery mail_deliveries%ROWTYPE;
BEGIN
    SELECT * INTO v_delivery FROM mail_deliveries WHERE delivery_id = p_delivery_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'mail_delivery_not_found', 'There is no such mail.');
    ELSIF v_delivery.status = 'sent' THEN
        PERFORM fail(409, 'already_sent', 'The relay has taken this mail.');
    ELSIF v_delivery.status IN ('cancelled', 'expired') THEN
        PERFORM fail(409, 'invalid_transition', format('A mail that is %s is not sent any more.', v_delivery.status),
                     jsonb_build_object('from', v_delivery.status, 'action', 'resend', 'allowed', '[]'::jsonb));
    ELSIF is_over(v_delivery.expires_at) OR EXISTS (SELECT FROM mail_payloads AS p WHERE p.payload_id = v_delivery.payload_id AND p.erased_at IS NOT NULL) THEN
        PERFORM fail(409, 'mail_erased', 'What this mail said is forgotten: it was of use for a short time only.');
    END IF;
    DELETE FROM mail_dead_letters WHERE delivery_id = p_delivery_id;
    -- Whoever sends it now keeps it: sent again it is when that attempt has failed.
    UPDATE mail_deliveries SET status = 'pending', attempts = 0, next_attempt_at = backend.now()
     WHERE delivery_id = p_delivery_id
    RETURNING * INTO v_delivery;
    PERFORM job_defer_once('mail', 'mail_deliver', v_delivery.priority);
    RETURN v_delivery;
END;
$$;
COMMENT ON FUNCTION backend.mail_resend(uuid) IS
    'Has a mail sent now, with as many tries as a new one. GX404 mail_delivery_not_found, GX409 already_sent, invalid_transition, mail_erased.';

CREATE FUNCTION backend.mail_delivery_json(p_delivery backend.mail_deliveries) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'delivery_id', p_delivery.delivery_id,
    'template_id', p_delivery.template_id,
    'user_id', p_delivery.user_id,
    'status', p_delivery.status,
    'attempts', p_delivery.attempts,
    'next_attempt_at', CASE WHEN p_delivery.status IN ('pending', 'retrying') THEN backend.ts(p_delivery.next_attempt_at) END,
    'expires_at', backend.ts(p_delivery.expires_at),
    'recipients', (SELECT coalesce(jsonb_agg(r.address ORDER BY r.address), '[]')
                     FROM backend.mail_recipients AS r WHERE r.delivery_id = p_delivery.delivery_id),
    'created_at', backend.ts(p_delivery.created_at)
);
COMMENT ON FUNCTION backend.mail_delivery_json(backend.mail_deliveries) IS
    'The mail delivery object of the contract; what the mail says is not in it.';

COMMIT;
