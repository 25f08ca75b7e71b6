-- Deploy galaxy-backend:backend/mail to pg
-- requires: backend/accounts
-- requires: backend/states
-- requires: backend/queue_wake

-- Why: the outbox. A mail is rendered and stored in the transaction of what causes it, and sent by a worker under a lease.

BEGIN;
SET LOCAL ROLE backend_owner;

INSERT INTO backend.state_transitions (machine, action, from_state, to_state, description) VALUES
    ('mail_delivery', 'enqueue', NULL, 'pending', 'Stored with its cause.'),
    ('mail_delivery', 'report-sent', 'pending', 'sent', 'The relay took it.'),
    ('mail_delivery', 'report-sent', 'retrying', 'sent', 'The relay took it.'),
    ('mail_delivery', 'report-transient', 'pending', 'retrying', 'A 4xx, or the network.'),
    ('mail_delivery', 'report-transient', 'retrying', 'retrying', 'A 4xx, or the network.'),
    ('mail_delivery', 'report-sent', 'dead_lettered', 'sent', 'It was given up, and the relay had taken it.'),
    ('mail_delivery', 'report-permanent', 'pending', 'dead_lettered', 'A 5xx, or one attempt too many.'),
    ('mail_delivery', 'report-permanent', 'retrying', 'dead_lettered', 'A 5xx, or one attempt too many.'),
    ('mail_delivery', 'cancel', 'pending', 'cancelled', 'What it speaks of is gone.'),
    ('mail_delivery', 'cancel', 'retrying', 'cancelled', 'What it speaks of is gone.'),
    ('mail_delivery', 'expire', 'pending', 'expired', 'It would come too late.'),
    ('mail_delivery', 'expire', 'retrying', 'expired', 'It would come too late.'),
    ('mail_delivery', 'resend', 'pending', 'pending', 'An administrator does not want to wait.'),
    ('mail_delivery', 'resend', 'retrying', 'pending', 'An administrator does not want to wait.'),
    ('mail_delivery', 'resend', 'dead_lettered', 'pending', 'An administrator sends it again.');

CREATE FUNCTION backend.mail_has_places_only(p_template text) RETURNS boolean
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN regexp_replace(p_template, '\{\{[a-z_]+\}\}', '', 'g') !~ '\{\{|\}\}';
COMMENT ON FUNCTION backend.mail_has_places_only(text) IS 'Whether every pair of braces in a template is the place of a value, such as {{name}}.';

CREATE TABLE backend.mail_templates (
    template_id text PRIMARY KEY,
    subject text NOT NULL CONSTRAINT mail_templates_subject_has_places_only CHECK (backend.mail_has_places_only(subject)),
    body_text text NOT NULL CONSTRAINT mail_templates_text_has_places_only CHECK (backend.mail_has_places_only(body_text)),
    body_html text NOT NULL CONSTRAINT mail_templates_html_has_places_only CHECK (backend.mail_has_places_only(body_html)),
    priority integer NOT NULL DEFAULT 0,
    is_secret boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    -- A subject is kept, and shown to administrators.
    CONSTRAINT mail_templates_secret_is_not_in_the_subject CHECK (NOT is_secret OR strpos(subject, '{{') = 0)
);
COMMENT ON TABLE backend.mail_templates IS 'One per kind of mail, in English; {{name}} is replaced, escaped in the HTML.';
COMMENT ON COLUMN backend.mail_templates.priority IS 'Higher goes first.';
COMMENT ON COLUMN backend.mail_templates.is_secret IS 'The body is erased when the mail is done with, and no view shows it.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.mail_templates FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.mail_payloads (
    payload_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    subject text NOT NULL CONSTRAINT mail_payloads_subject_is_one_line CHECK (subject !~ '[\x01-\x1f\x7f-\x9f\u2028\u2029]' AND length(subject) <= 500),
    body_text text,
    body_html text,
    erased_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT mail_payloads_erased_has_no_body
        CHECK ((erased_at IS NULL) = (body_text IS NOT NULL) AND (erased_at IS NULL) = (body_html IS NOT NULL))
);
COMMENT ON TABLE backend.mail_payloads IS 'What a mail says, as it was rendered.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.mail_payloads FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.mail_deliveries (
    delivery_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    template_id text NOT NULL REFERENCES backend.mail_templates,
    idempotency_key text NOT NULL,
    payload_id uuid NOT NULL REFERENCES backend.mail_payloads,
    user_id uuid REFERENCES backend.accounts,
    status text NOT NULL DEFAULT 'pending',
    priority integer NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    last_attempt_no integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT backend.now(),
    lease_until timestamptz,
    expires_at timestamptz,
    request_id text,
    traceparent text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT mail_deliveries_one_per_template_and_key UNIQUE (template_id, idempotency_key)
);
COMMENT ON TABLE backend.mail_deliveries IS 'The outbox: one row for each mail.';
COMMENT ON COLUMN backend.mail_deliveries.attempts IS 'Since it was enqueued, or sent again by an administrator.';
COMMENT ON COLUMN backend.mail_deliveries.last_attempt_no IS 'Rises for ever; the fencing number of the lease.';
COMMENT ON COLUMN backend.mail_deliveries.lease_until IS 'A worker has it until then.';
COMMENT ON COLUMN backend.mail_deliveries.expires_at IS 'From then on it is dropped, not sent late.';
COMMENT ON COLUMN backend.mail_deliveries.request_id IS 'The request that caused it; null for none.';
COMMENT ON COLUMN backend.mail_deliveries.traceparent IS 'The W3C trace context of that request.';
CREATE INDEX mail_deliveries_by_payload ON backend.mail_deliveries (payload_id);
CREATE INDEX mail_deliveries_by_user ON backend.mail_deliveries (user_id) WHERE user_id IS NOT NULL;
-- What is to be sent, in the order of sending; everything that is done with stays out of it.
CREATE INDEX mail_deliveries_due ON backend.mail_deliveries (priority DESC, next_attempt_at) WHERE status IN ('pending', 'retrying');
-- What is to be dropped.
CREATE INDEX mail_deliveries_expiring ON backend.mail_deliveries (expires_at)
    WHERE status IN ('pending', 'retrying') AND expires_at IS NOT NULL;
-- What retention lets go.
CREATE INDEX mail_deliveries_done ON backend.mail_deliveries (updated_at) WHERE status NOT IN ('pending', 'retrying');
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF status ON backend.mail_deliveries
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('mail_delivery', 'status');
CREATE TRIGGER touch BEFORE UPDATE ON backend.mail_deliveries FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.mail_recipients (
    delivery_id uuid NOT NULL REFERENCES backend.mail_deliveries,
    address text NOT NULL CONSTRAINT mail_recipients_address_is_plain
        CHECK (address ~ '^[A-Za-z0-9!#$%&''*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$' AND length(address) <= 254),
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (delivery_id, address)
);
COMMENT ON TABLE backend.mail_recipients IS 'To whom a mail goes.';
-- What went to an address is found when its account is deleted.
CREATE INDEX mail_recipients_by_address ON backend.mail_recipients (address);
CREATE TRIGGER touch BEFORE UPDATE ON backend.mail_recipients FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.mail_attempts (
    delivery_id uuid NOT NULL REFERENCES backend.mail_deliveries,
    attempt_no integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT backend.now(),
    finished_at timestamptz,
    outcome text NOT NULL DEFAULT 'outcome_unknown'
        CONSTRAINT mail_attempts_outcome_is_known CHECK (outcome IN ('sent', 'transient', 'permanent', 'outcome_unknown')),
    error text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (delivery_id, attempt_no)
);
COMMENT ON TABLE backend.mail_attempts IS
    'Every attempt. outcome_unknown while it goes on, and for ever if the worker died between the relay''s answer and its report.';

CREATE TRIGGER touch BEFORE UPDATE ON backend.mail_attempts FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.mail_dead_letters (
    delivery_id uuid PRIMARY KEY REFERENCES backend.mail_deliveries,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.mail_dead_letters IS 'Mail that was given up; one row while it is dead.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.mail_dead_letters FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE FUNCTION backend.html_escape(p_text text) RETURNS text
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN replace(replace(replace(replace(replace(p_text, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;');
COMMENT ON FUNCTION backend.html_escape(text) IS 'Text as HTML that shows it.';

CREATE FUNCTION backend.mail_render(p_template text, p_values jsonb, p_is_html boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_part text;
    v_name text;
    v_value text;
    v_rest text := p_template;
    v_out text := '';
BEGIN
    -- From left to right, once: what a value contains is never looked at again.
    LOOP
        v_name := substring(v_rest FROM '\{\{([a-z_]+)\}\}');
        EXIT WHEN v_name IS NULL;
        v_part := '{{' || v_name || '}}';
        v_value := p_values ->> v_name;
        IF v_value IS NULL THEN
            RAISE EXCEPTION 'a mail needs the value %', v_name USING ERRCODE = 'invalid_parameter_value';
        END IF;
        v_out := v_out || left(v_rest, strpos(v_rest, v_part) - 1) || CASE WHEN p_is_html THEN html_escape(v_value) ELSE v_value END;
        v_rest := substr(v_rest, strpos(v_rest, v_part) + length(v_part));
    END LOOP;
    RETURN v_out || v_rest;
END;
$$;
COMMENT ON FUNCTION backend.mail_render(text, jsonb, boolean) IS 'A template with its values. 22023 when one is missing.';

CREATE FUNCTION backend.mail_enqueue(
    p_template_id text, p_idempotency_key text, p_recipients text[], p_values jsonb,
    p_user_id uuid DEFAULT NULL, p_expires_at timestamptz DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_template mail_templates%ROWTYPE;
    v_payload_id uuid;
    v_delivery_id uuid;
BEGIN
    SELECT * INTO STRICT v_template FROM mail_templates WHERE template_id = p_template_id;
    SELECT d.delivery_id INTO v_delivery_id FROM mail_deliveries AS d
     WHERE d.template_id = p_template_id AND d.idempotency_key = p_idempotency_key;
    IF FOUND THEN
        RETURN v_delivery_id;
    END IF;
    IF coalesce(cardinality(p_recipients), 0) = 0 THEN
        RAISE EXCEPTION 'a mail needs a recipient' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO mail_payloads (subject, body_text, body_html)
    VALUES (
        -- A line break of a value must not begin another header.
        left(regexp_replace(mail_render(v_template.subject, p_values, false), '[\x01-\x1f\x7f-\x9f\u2028\u2029]+', ' ', 'g'), 500),
        mail_render(v_template.body_text, p_values, false),
        mail_render(v_template.body_html, p_values, true)
    )
    RETURNING payload_id INTO v_payload_id;
    -- Two at once with one key: the second waits here for the first, and then finds its mail.
    INSERT INTO mail_deliveries (template_id, idempotency_key, payload_id, user_id, priority, expires_at, request_id, traceparent)
    VALUES (p_template_id, p_idempotency_key, v_payload_id, p_user_id, v_template.priority, p_expires_at, request_id(), traceparent())
    ON CONFLICT ON CONSTRAINT mail_deliveries_one_per_template_and_key DO NOTHING
    RETURNING delivery_id INTO v_delivery_id;
    IF v_delivery_id IS NULL THEN
        DELETE FROM mail_payloads WHERE payload_id = v_payload_id;
        SELECT d.delivery_id INTO STRICT v_delivery_id FROM mail_deliveries AS d
         WHERE d.template_id = p_template_id AND d.idempotency_key = p_idempotency_key;
        RETURN v_delivery_id;
    END IF;
    INSERT INTO mail_recipients (delivery_id, address) SELECT v_delivery_id, a FROM unnest(p_recipients) AS a;
    PERFORM job_defer_once('mail', 'mail_deliver', v_template.priority);
    RETURN v_delivery_id;
END;
$$;
COMMENT ON FUNCTION backend.mail_enqueue(text, text, text[], jsonb, uuid, timestamptz) IS
    'Stores a mail in this transaction and wakes a worker; the same template and key again is the same mail. 22023 when a value or the recipient is missing, 23514 for what is not an address.';

CREATE FUNCTION backend.mail_erase(p_delivery_id uuid) RETURNS void
LANGUAGE sql VOLATILE SECURITY INVOKER
BEGIN ATOMIC
    UPDATE backend.mail_payloads SET body_text = NULL, body_html = NULL, erased_at = backend.now()
      FROM backend.mail_deliveries AS d JOIN backend.mail_templates AS t USING (template_id)
     WHERE d.delivery_id = p_delivery_id AND mail_payloads.payload_id = d.payload_id AND t.is_secret
       AND mail_payloads.erased_at IS NULL;
END;
COMMENT ON FUNCTION backend.mail_erase(uuid) IS 'Forgets what a secret mail said; leaves any other alone.';

CREATE VIEW backend.invariants_mail AS
SELECT 'sent_mail_without_a_sent_attempt' AS invariant, d.delivery_id AS object_id, d.template_id AS details
  FROM backend.mail_deliveries AS d
 WHERE d.status = 'sent'
   AND NOT EXISTS (SELECT FROM backend.mail_attempts AS a WHERE a.delivery_id = d.delivery_id AND a.outcome = 'sent')
UNION ALL
SELECT 'mail_without_a_recipient', d.delivery_id, d.template_id
  FROM backend.mail_deliveries AS d
 WHERE NOT EXISTS (SELECT FROM backend.mail_recipients AS r WHERE r.delivery_id = d.delivery_id)
UNION ALL
SELECT 'dead_letter_and_delivery_disagree', d.delivery_id, d.status
  FROM backend.mail_deliveries AS d LEFT JOIN backend.mail_dead_letters AS l USING (delivery_id)
 WHERE (d.status = 'dead_lettered') <> (l.delivery_id IS NOT NULL)
UNION ALL
SELECT 'secret_kept_in_a_mail_that_is_done_with', d.delivery_id, d.status
  FROM backend.mail_deliveries AS d JOIN backend.mail_templates AS t USING (template_id) JOIN backend.mail_payloads AS p USING (payload_id)
 WHERE t.is_secret AND p.erased_at IS NULL AND d.status NOT IN ('pending', 'retrying');
COMMENT ON VIEW backend.invariants_mail IS 'What must never be seen in the outbox.';

COMMIT;
