-- Deploy galaxy-backend:api/administrators to pg
-- requires: backend/administrators
-- requires: backend/audit
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.administrator_credential(p_username text, p_source_ip inet) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_administrator admin_accounts%ROWTYPE;
    v_key bytea := admin_attempts_key(p_username, p_source_ip);
BEGIN
    SELECT * INTO v_administrator FROM admin_accounts AS a WHERE a.username = p_username AND a.disabled_at IS NULL;
    RETURN json_build_object(
        'password_hash', v_administrator.password_hash,
        'source', source_network(p_source_ip, 32),
        'retry_after', admin_attempts_wait(v_key, setting('admin_attempts')),
        'compare_after', admin_attempts_wait(admin_attempts_key(NULL, p_source_ip), setting('admin_attempts_per_address')),
        'is_to_be_noted', EXISTS (SELECT FROM admin_attempts AS t WHERE t.key_hash = v_key AND t.expires_at > backend.now())
                          OR coalesce(v_administrator.last_used_at <= backend.now() - interval '1 minute', true))::text;
END;
$$;
COMMENT ON FUNCTION api.administrator_credential(text, inet) IS
    'The bcrypt hash that a password is compared with, null for nobody and for a disabled administrator; what an address is told by; for how many seconds nobody of this name is let in from there, and no password from there compared; and whether a success is to be noted. Raises nothing of its own.';

CREATE FUNCTION api.administrator_attempt_failed(p_username text, p_source_ip inet) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_expires_at timestamptz := backend.now() + setting_interval('admin_attempts_window');
BEGIN
    -- Its own row before the one where all from there meet.
    INSERT INTO admin_attempts AS t (key_hash, expires_at)
    VALUES (admin_attempts_key(p_username, p_source_ip), v_expires_at), (admin_attempts_key(NULL, p_source_ip), v_expires_at)
    ON CONFLICT (key_hash) DO UPDATE
       SET failures = CASE WHEN t.expires_at <= backend.now() THEN 1 ELSE t.failures + 1 END,
           expires_at = CASE WHEN t.expires_at <= backend.now() THEN v_expires_at ELSE t.expires_at END;
END;
$$;
COMMENT ON FUNCTION api.administrator_attempt_failed(text, inet) IS
    'Counts a wrong password for a name, whether or not there is such an administrator, and for the address. Raises nothing of its own.';

CREATE FUNCTION api.administrator_used(p_username text, p_source_ip inet) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM admin_attempts AS t WHERE t.key_hash = admin_attempts_key(p_username, p_source_ip);
    -- Of many requests at once one writes, and nobody waits for it.
    UPDATE admin_accounts SET last_used_at = backend.now()
     WHERE username = (
         SELECT a.username FROM admin_accounts AS a
          WHERE a.username = p_username AND a.disabled_at IS NULL
            AND (a.last_used_at IS NULL OR a.last_used_at <= backend.now() - interval '1 minute')
            FOR NO KEY UPDATE SKIP LOCKED);
END;
$$;
COMMENT ON FUNCTION api.administrator_used(text, inet) IS
    'Notes that a password was right: forgets the wrong ones from there, and says when, at most once a minute. Raises nothing of its own.';

CREATE FUNCTION api.administrator_bootstrap(p_username text, p_password_hash text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    -- Several processes start at once; and one that was broken into must not be able to add itself later.
    PERFORM pg_advisory_xact_lock(hashtextextended('administrator_bootstrap', 7));
    IF EXISTS (SELECT FROM admin_accounts) THEN
        RETURN false;
    END IF;
    INSERT INTO admin_accounts (username, password_hash) VALUES (p_username, p_password_hash);
    RETURN true;
END;
$$;
COMMENT ON FUNCTION api.administrator_bootstrap(text, text) IS
    'Makes the first administrator, if there is none at all; tells whether it did. 23514 for a bad name or hash.';

CREATE FUNCTION api.administrator_list(p_admin text, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_after text := cursor_read('administrator_list', p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(administrator_json(r) ORDER BY r.username), array_agg(r.username ORDER BY r.username) INTO v_items, v_keys
      FROM (SELECT a.* FROM admin_accounts AS a
             WHERE v_after IS NULL OR a.username > v_after
             ORDER BY a.username
             LIMIT p_limit + 1) AS r;
    RETURN page('administrator_list', v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.administrator_list(text, integer, text) IS
    'The administrators by name. GX400 invalid_cursor, GX401 unauthorized.';

CREATE FUNCTION api.administrator_get(p_admin text, p_username text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM administrator_require(p_admin);
    RETURN administrator_json(administrator_find(p_username))::text;
END;
$$;
COMMENT ON FUNCTION api.administrator_get(text, text) IS
    'One administrator. GX401 unauthorized, GX404 administrator_not_found.';

CREATE FUNCTION api.administrator_create(p_admin text, p_body jsonb, p_password_hash text) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_administrator admin_accounts%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    INSERT INTO admin_accounts (username, password_hash) VALUES (p_body ->> 'username', p_password_hash) RETURNING * INTO v_administrator;
    PERFORM audit(p_admin, 'administrator_create', 'administrator', v_administrator.username, NULL);
    RETURN ROW(201, administrator_json(v_administrator)::text, '/api/v1/admin/admin-accounts/' || v_administrator.username)::api.reply;
END;
$$;
COMMENT ON FUNCTION api.administrator_create(text, jsonb, text) IS
    'Makes an administrator. GX401 unauthorized, GX409 administrator_exists.';

CREATE FUNCTION api.administrator_disable(p_admin text, p_username text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_administrator admin_accounts%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    -- Two who disable each other at once: one after another, and the second is nobody any more.
    PERFORM FROM admin_accounts AS a WHERE a.disabled_at IS NULL ORDER BY a.username FOR NO KEY UPDATE;
    PERFORM administrator_require(p_admin);
    v_administrator := administrator_find(p_username);
    IF v_administrator.disabled_at IS NULL THEN
        IF NOT EXISTS (SELECT FROM admin_accounts AS a WHERE a.disabled_at IS NULL AND a.username <> p_username) THEN
            PERFORM fail(409, 'last_administrator', 'The last enabled administrator cannot be disabled.');
        END IF;
        UPDATE admin_accounts SET disabled_at = backend.now() WHERE username = p_username RETURNING * INTO v_administrator;
    END IF;
    PERFORM audit(p_admin, 'administrator_disable', 'administrator', p_username, NULL);
    RETURN administrator_json(v_administrator)::text;
END;
$$;
COMMENT ON FUNCTION api.administrator_disable(text, text) IS
    'Lets an administrator in no more; again changes nothing. GX401 unauthorized, GX404 administrator_not_found, GX409 last_administrator.';

CREATE FUNCTION api.administrator_enable(p_admin text, p_username text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM administrator_require(p_admin);
    PERFORM administrator_find(p_username);
    UPDATE admin_accounts SET disabled_at = NULL WHERE username = p_username AND disabled_at IS NOT NULL;
    PERFORM audit(p_admin, 'administrator_enable', 'administrator', p_username, NULL);
    RETURN administrator_json(administrator_find(p_username))::text;
END;
$$;
COMMENT ON FUNCTION api.administrator_enable(text, text) IS
    'Lets an administrator in again; one who is enabled stays so. GX401 unauthorized, GX404 administrator_not_found.';

CREATE FUNCTION api.administrator_reset_password(p_admin text, p_username text, p_body jsonb, p_password_hash text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM administrator_require(p_admin);
    PERFORM administrator_find(p_username);
    UPDATE admin_accounts SET password_hash = p_password_hash WHERE username = p_username;
    PERFORM audit(p_admin, 'administrator_reset_password', 'administrator', p_username, p_body - 'password');
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION api.administrator_reset_password(text, text, jsonb, text) IS
    'Gives an administrator another password; the old one opens nothing from now on. GX401 unauthorized, GX404 administrator_not_found.';

COMMIT;
