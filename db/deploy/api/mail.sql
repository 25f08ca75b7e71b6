-- Deploy galaxy-backend:api/mail to pg
-- requires: backend/mail_rules
-- requires: backend/auth
-- requires: backend/audit
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.mail_delivery_list(
    p_admin text, p_status text[], p_template_id text, p_recipient text, p_limit integer, p_cursor text
) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_recipient text := email_normalise(p_recipient);
    v_list text := 'mail_delivery_list:' || jsonb_build_array(p_status, p_template_id, v_recipient)::text;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(mail_delivery_json(r) ORDER BY r.delivery_id DESC), array_agg(r.delivery_id::text ORDER BY r.delivery_id DESC)
      INTO v_items, v_keys
      FROM (SELECT d.* FROM mail_deliveries AS d
             WHERE (v_before IS NULL OR d.delivery_id < v_before)
               AND (p_status IS NULL OR d.status = ANY (p_status))
               AND (p_template_id IS NULL OR d.template_id = p_template_id)
               AND (p_recipient IS NULL
                    OR d.delivery_id IN (SELECT m.delivery_id FROM mail_recipients AS m WHERE m.address = v_recipient))
             ORDER BY d.delivery_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.mail_delivery_list(text, text[], text, text, integer, text) IS
    'Mail, newest first: by state, template and recipient. GX400 invalid_cursor, GX401 unauthorized.';

CREATE FUNCTION api.mail_delivery_get(p_admin text, p_delivery_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_delivery mail_deliveries%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT * INTO v_delivery FROM mail_deliveries WHERE delivery_id = p_delivery_id;
    IF NOT FOUND THEN
        PERFORM fail(404, 'mail_delivery_not_found', 'There is no such mail.');
    END IF;
    RETURN (SELECT mail_delivery_json(v_delivery) || jsonb_build_object(
                'subject', p.subject,
                -- A secret is nobody's but the recipient's, also before it is erased.
                'body_text', CASE WHEN NOT t.is_secret THEN p.body_text END,
                'body_html', CASE WHEN NOT t.is_secret THEN p.body_html END,
                'dead_letter_reason', (SELECT l.reason FROM mail_dead_letters AS l WHERE l.delivery_id = p_delivery_id))
              FROM mail_payloads AS p, mail_templates AS t
             WHERE p.payload_id = v_delivery.payload_id AND t.template_id = v_delivery.template_id)::text;
END;
$$;
COMMENT ON FUNCTION api.mail_delivery_get(text, uuid) IS
    'A mail and what it says, unless that is a secret. GX401 unauthorized, GX404 mail_delivery_not_found.';

CREATE FUNCTION api.mail_attempt_list(p_admin text, p_delivery_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'mail_attempt_list:' || p_delivery_id;
    v_key text := cursor_read(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    IF v_key !~ '^[0-9]{1,9}$' THEN
        PERFORM fail(400, 'invalid_cursor', 'The cursor is not one of this list.');
    END IF;
    PERFORM administrator_require(p_admin);
    IF NOT EXISTS (SELECT FROM mail_deliveries WHERE delivery_id = p_delivery_id) THEN
        PERFORM fail(404, 'mail_delivery_not_found', 'There is no such mail.');
    END IF;
    SELECT array_agg(jsonb_build_object(
               'attempt_no', r.attempt_no, 'started_at', ts(r.started_at), 'finished_at', ts(r.finished_at),
               'outcome', r.outcome, 'error', r.error) ORDER BY r.attempt_no),
           array_agg(r.attempt_no::text ORDER BY r.attempt_no)
      INTO v_items, v_keys
      FROM (SELECT a.* FROM mail_attempts AS a
             WHERE a.delivery_id = p_delivery_id AND (v_key IS NULL OR a.attempt_no > v_key::integer)
             ORDER BY a.attempt_no
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.mail_attempt_list(text, uuid, integer, text) IS
    'The attempts to send a mail, oldest first. GX400 invalid_cursor, GX401 unauthorized, GX404 mail_delivery_not_found.';

CREATE FUNCTION api.mail_dead_letter_list(p_admin text, p_template_id text, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'mail_dead_letter_list:' || jsonb_build_array(p_template_id)::text;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(r.item ORDER BY r.delivery_id DESC), array_agg(r.delivery_id::text ORDER BY r.delivery_id DESC) INTO v_items, v_keys
      FROM (SELECT l.delivery_id,
                   mail_delivery_json(d) || jsonb_build_object('dead_letter_reason', l.reason, 'dead_lettered_at', ts(l.created_at)) AS item
              FROM mail_dead_letters AS l JOIN mail_deliveries AS d USING (delivery_id)
             WHERE (v_before IS NULL OR l.delivery_id < v_before)
               AND (p_template_id IS NULL OR d.template_id = p_template_id)
             ORDER BY l.delivery_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.mail_dead_letter_list(text, text, integer, text) IS
    'Mail that was given up and why, the newest mail first. GX400 invalid_cursor, GX401 unauthorized.';

CREATE FUNCTION api.mail_delivery_resend(p_admin text, p_delivery_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_delivery mail_deliveries%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_delivery := mail_resend(p_delivery_id);
    PERFORM audit(p_admin, 'mail_delivery_resend', 'mail_delivery', p_delivery_id::text, NULL);
    RETURN mail_delivery_json(v_delivery)::text;
END;
$$;
COMMENT ON FUNCTION api.mail_delivery_resend(text, uuid) IS
    'Has a mail sent again, or at once. GX401 unauthorized, GX404 mail_delivery_not_found, GX409 already_sent, invalid_transition, mail_erased.';

CREATE FUNCTION api.mail_resend(p_admin text, p_delivery_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_delivery mail_deliveries%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_delivery := mail_resend(p_delivery_id);
    PERFORM audit(p_admin, 'mail_resend', 'mail_delivery', p_delivery_id::text, NULL);
    RETURN mail_delivery_json(v_delivery)::text;
END;
$$;
COMMENT ON FUNCTION api.mail_resend(text, uuid) IS
    'The same as mail_delivery_resend, by its other path. GX401 unauthorized, GX404 mail_delivery_not_found, GX409 already_sent, invalid_transition, mail_erased.';

COMMIT;
