-- Verify galaxy-backend:backend/administrators on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT username, password_hash, disabled_at, last_used_at, created_at, updated_at FROM backend.admin_accounts WHERE false;
SELECT key_hash, failures, expires_at, created_at, updated_at FROM backend.admin_attempts WHERE false;

DO $$
BEGIN
    PERFORM 'backend.admin_attempts_key(text, inet)'::regprocedure;
    PERFORM 'backend.admin_attempts_wait(bytea, numeric)'::regprocedure;
    PERFORM 'backend.administrator_find(text)'::regprocedure;
    PERFORM 'backend.administrator_json(backend.admin_accounts)'::regprocedure;
    BEGIN
        PERFORM backend.administrator_require('nobody at all');
        ASSERT false, 'nobody at all is an administrator';
    EXCEPTION WHEN SQLSTATE 'GX401' THEN
        NULL;
    END;
END;
$$;

ROLLBACK;
