-- Verify galaxy-backend:backend/mail on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT delivery_id, template_id, idempotency_key, payload_id, user_id, status, priority, attempts, last_attempt_no, next_attempt_at,
       lease_until, expires_at FROM backend.mail_deliveries WHERE false;
SELECT delivery_id, attempt_no, started_at, finished_at, outcome, error FROM backend.mail_attempts WHERE false;

DO $$
DECLARE
    v_delivery_id uuid;
BEGIN
    ASSERT backend.mail_render('{{a}}{{b}}', '{"a": "{{b}}", "b": "<"}', true) = '{{b}}&lt;', 'mail is rendered wrongly';
    INSERT INTO backend.mail_templates (template_id, subject, body_text, body_html, is_secret) VALUES ('verify', 's', '{{a}}', '{{a}}', true);
    v_delivery_id := backend.mail_enqueue('verify', 'verify', ARRAY['a@example.org'], '{"a": "1"}');
    ASSERT v_delivery_id = backend.mail_enqueue('verify', 'verify', ARRAY['a@example.org'], '{"a": "2"}'),
        'one key made two mails';
    PERFORM backend.mail_erase(v_delivery_id);
    ASSERT NOT EXISTS (SELECT FROM backend.mail_payloads AS p JOIN backend.mail_deliveries AS d USING (payload_id)
                        WHERE d.delivery_id = v_delivery_id AND p.body_text IS NOT NULL), 'a secret mail keeps its body';
    PERFORM FROM backend.invariants_mail;
    PERFORM 'backend.mail_templates'::regclass;
    PERFORM 'backend.mail_recipients'::regclass;
    PERFORM 'backend.mail_dead_letters'::regclass;
    PERFORM 'backend.html_escape(text)'::regprocedure;
    ASSERT NOT backend.mail_has_places_only('{{ name }}'), 'a place that is none is taken for text';
END;
$$;

ROLLBACK;
