-- Deploy galaxy-backend:api/blocked_emails to pg
-- requires: backend/account_moderation
-- requires: backend/audit
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.blocked_email_list(p_admin text, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_after text := cursor_read('blocked_email_list', p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(blocked_email_json(r) ORDER BY r.email COLLATE "C"), array_agg(r.email ORDER BY r.email COLLATE "C")
      INTO v_items, v_keys
      FROM (SELECT b.* FROM blocked_emails AS b
             WHERE v_after IS NULL OR b.email COLLATE "C" > v_after COLLATE "C"
             ORDER BY b.email COLLATE "C"
             LIMIT p_limit + 1) AS r;
    RETURN page('blocked_email_list', v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.blocked_email_list(text, integer, text) IS
    'The addresses that may not be used, in their order. GX400 invalid_cursor, GX401 unauthorized.';

CREATE FUNCTION api.blocked_email_create(p_admin text, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_email text := email_normalise(p_body ->> 'email');
    v_blocked blocked_emails%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    IF v_email IS NULL THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.', '[{"path": "email", "problem": "is not an e-mail address"}]');
    END IF;
    -- Whoever signs in by it now comes before, or finds it blocked.
    PERFORM identity_lock('email', v_email);
    INSERT INTO blocked_emails (email, reason, actor) VALUES (v_email, p_body ->> 'reason', p_admin)
    ON CONFLICT (email) DO NOTHING
    RETURNING * INTO v_blocked;
    IF v_blocked.email IS NULL THEN
        PERFORM fail(409, 'conflict', 'This address is blocked already.');
    END IF;
    -- Not the address itself, which could never be taken out of the log again.
    PERFORM audit(p_admin, 'blocked_email_create', 'blocked_email', encode(sha256(convert_to(v_email, 'UTF8')), 'hex'), p_body - 'email');
    RETURN ROW(201, blocked_email_json(v_blocked)::text, '/api/v1/admin/blocked-emails/' || url_segment(v_email))::api.reply;
END;
$$;
COMMENT ON FUNCTION api.blocked_email_create(text, jsonb) IS
    'Keeps an address from ever signing in; an account that it has is not touched. GX400 invalid_request, GX401 unauthorized, GX409 conflict.';

CREATE FUNCTION api.blocked_email_delete(p_admin text, p_email text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_email text := email_normalise(p_email);
BEGIN
    PERFORM administrator_require(p_admin);
    DELETE FROM blocked_emails WHERE email = v_email;
    IF NOT FOUND THEN
        PERFORM fail(404, 'blocked_email_not_found', 'This address is not blocked.');
    END IF;
    PERFORM audit(p_admin, 'blocked_email_delete', 'blocked_email', encode(sha256(convert_to(v_email, 'UTF8')), 'hex'), NULL);
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION api.blocked_email_delete(text, text) IS
    'Lets an address be used again. GX401 unauthorized, GX404 blocked_email_not_found.';

COMMIT;
