-- Deploy galaxy-backend:api/administrators to pg
-- requires: backend/administrators
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.administrator_credential(p_username text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT a.password_hash FROM admin_accounts AS a WHERE a.username = p_username AND a.disabled_at IS NULL);
END;
$$;
COMMENT ON FUNCTION api.administrator_credential(text) IS
    'The bcrypt hash that a password is compared with; null for nobody and for a disabled administrator. Raises nothing of its own.';

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
DECLARE
    v_administrator admin_accounts%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT * INTO v_administrator FROM admin_accounts WHERE username = p_username;
    IF NOT FOUND THEN
        PERFORM fail(404, 'administrator_not_found', 'There is no such administrator.');
    END IF;
    RETURN administrator_json(v_administrator)::text;
END;
$$;
COMMENT ON FUNCTION api.administrator_get(text, text) IS
    'One administrator. GX401 unauthorized, GX404 administrator_not_found.';

COMMIT;
