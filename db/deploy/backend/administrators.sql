-- Deploy galaxy-backend:backend/administrators to pg
-- requires: backend/errors

-- Why: platform administrators sign in with a name and a password; the app hashes it (bcrypt), the database never sees it.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.admin_accounts (
    username text PRIMARY KEY CONSTRAINT admin_accounts_username_is_plain CHECK (username ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    password_hash text NOT NULL CONSTRAINT admin_accounts_password_is_bcrypt CHECK (password_hash ~ '^\$2[aby]\$[0-9]{2}\$.{53}$'),
    disabled_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.admin_accounts IS 'Platform administrators.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.admin_accounts FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE FUNCTION backend.administrator_json(p_admin backend.admin_accounts) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'username', p_admin.username,
    'disabled_at', backend.ts(p_admin.disabled_at),
    'last_used_at', backend.ts(p_admin.last_used_at),
    'created_at', backend.ts(p_admin.created_at)
);
COMMENT ON FUNCTION backend.administrator_json(backend.admin_accounts) IS 'The administrator object of the contract.';

CREATE FUNCTION backend.administrator_require(p_admin text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM admin_accounts AS a WHERE a.username = p_admin AND a.disabled_at IS NULL) THEN
        PERFORM fail(401, 'unauthorized', 'Sign in as an administrator.');
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.administrator_require(text) IS
    'Every function of the admin group begins with it. GX401 unauthorized.';

COMMIT;
