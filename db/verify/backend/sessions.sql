-- Verify galaxy-backend:backend/sessions on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT device_session_id, user_id, kind, status, client_public_key, token_hash, revoked_at, revoke_reason, last_seen_at, created_at,
       updated_at FROM backend.device_sessions WHERE false;

DO $$
DECLARE
    v_user_id uuid := (backend.account_create('telegram', 'verify', NULL, 'en', 'UTC', NULL)).user_id;
    v_session_id uuid;
BEGIN
    INSERT INTO backend.device_sessions (user_id, kind, client_public_key) VALUES (v_user_id, 'key', decode(repeat('00', 32), 'hex'))
    RETURNING device_session_id INTO v_session_id;
    ASSERT (backend.session_revoke(v_session_id, 'logout')).status = 'revoked', 'a session cannot be revoked';
    ASSERT backend.session_revoke_all(v_user_id, 'logout') = 0, 'a revoked session is revoked again';
    BEGIN
        UPDATE backend.device_sessions SET status = 'active', revoked_at = NULL, revoke_reason = NULL
         WHERE device_session_id = v_session_id;
        ASSERT false, 'a session came back';
    EXCEPTION WHEN SQLSTATE 'GX409' THEN
        NULL;
    END;
    PERFORM FROM backend.invariants_sessions;
    PERFORM 'backend.session_json(backend.device_sessions)'::regprocedure;
END;
$$;

ROLLBACK;
