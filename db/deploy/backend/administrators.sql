-- Deploy galaxy-backend:backend/administrators to pg
-- requires: backend/errors
-- requires: backend/budgets

-- Why: platform administrators sign in with a name and a password; the app hashes it (bcrypt), the database never sees it.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.admin_accounts (
    username text PRIMARY KEY CONSTRAINT admin_accounts_username_is_plain CHECK (username ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    password_hash text NOT NULL CONSTRAINT admin_accounts_password_is_bcrypt CHECK (password_hash ~ '^\$2[aby]\$12\$.{53}$'),
    disabled_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.admin_accounts IS 'Platform administrators.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.admin_accounts FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

INSERT INTO backend.constraint_errors (constraint_name, status, code, message) VALUES
    ('admin_accounts_pkey', 409, 'administrator_exists', 'There is an administrator of this name already.');

CREATE TABLE backend.admin_attempts (
    key_hash bytea PRIMARY KEY CONSTRAINT admin_attempts_key_hash_has_32_bytes CHECK (length(key_hash) = 32),
    failures integer NOT NULL DEFAULT 1 CONSTRAINT admin_attempts_failures_are_positive CHECK (failures > 0),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.admin_attempts IS 'Wrong passwords for a name from an address, and for any name from there; what has expired counts for nothing.';
COMMENT ON COLUMN backend.admin_attempts.key_hash IS 'SHA-256 of name and address, or of the address: in the place of a name may stand a password that was typed too early.';
COMMENT ON COLUMN backend.admin_attempts.expires_at IS 'So long after the first of them.';
-- Retention.
CREATE INDEX admin_attempts_by_expiry ON backend.admin_attempts (expires_at);
CREATE TRIGGER touch BEFORE UPDATE ON backend.admin_attempts FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE FUNCTION backend.admin_attempts_key(p_username text, p_source_ip inet) RETURNS bytea
LANGUAGE sql STABLE SECURITY INVOKER
RETURN backend.budget_key('administrator', p_username, backend.source_network(p_source_ip, 32));
COMMENT ON FUNCTION backend.admin_attempts_key(text, inet) IS
    'What wrong passwords are counted for: a name (null for any) and an address, of IPv6 the network of 64 bits that one host can use all of.';

CREATE FUNCTION backend.admin_attempts_wait(p_key bytea, p_most numeric) RETURNS integer
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (SELECT ceil(extract(epoch FROM t.expires_at - backend.now()))::integer FROM backend.admin_attempts AS t
         WHERE t.key_hash = p_key AND t.expires_at > backend.now() AND t.failures >= p_most);
COMMENT ON FUNCTION backend.admin_attempts_wait(bytea, numeric) IS
    'Seconds until wrong passwords are counted anew, where there were so many; null where there were fewer.';

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

CREATE FUNCTION backend.administrator_find(p_username text) RETURNS backend.admin_accounts
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_administrator admin_accounts%ROWTYPE;
BEGIN
    SELECT * INTO v_administrator FROM admin_accounts WHERE username = p_username;
    IF NOT FOUND THEN
        PERFORM fail(404, 'administrator_not_found', 'There is no such administrator.');
    END IF;
    RETURN v_administrator;
END;
$$;
COMMENT ON FUNCTION backend.administrator_find(text) IS 'An administrator by name. GX404 administrator_not_found.';

COMMIT;
