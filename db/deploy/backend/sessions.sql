-- Deploy galaxy-backend:backend/sessions to pg
-- requires: backend/accounts
-- requires: backend/states

-- Why: a signed-in device. Active until it is revoked, then never again; whoever revokes also tells the gateways, in the same
-- transaction.

BEGIN;
SET LOCAL ROLE backend_owner;

INSERT INTO backend.state_transitions (machine, action, from_state, to_state, description) VALUES
    ('device_session', 'open', NULL, 'active', 'A way in was confirmed.'),
    ('device_session', 'revoke', 'active', 'revoked', 'For good.');

CREATE TABLE backend.device_sessions (
    device_session_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    user_id uuid NOT NULL REFERENCES backend.accounts,
    kind text NOT NULL CONSTRAINT device_sessions_kind_is_known CHECK (kind IN ('key', 'token')),
    status text NOT NULL DEFAULT 'active',
    client_public_key bytea CONSTRAINT device_sessions_key_has_32_bytes CHECK (length(client_public_key) = 32),
    token_hash bytea CONSTRAINT device_sessions_token_hash_has_32_bytes CHECK (length(token_hash) = 32),
    revoked_at timestamptz,
    revoke_reason text CONSTRAINT device_sessions_reason_is_known
        CHECK (revoke_reason IN ('logout', 'revoked_by_user', 'revoked_by_admin', 'account_deleted', 'account_blocked')),
    last_seen_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    -- A revoked one may have lost it, with its account.
    CONSTRAINT device_sessions_kind_has_its_secret
        CHECK (CASE kind WHEN 'key' THEN token_hash IS NULL AND (client_public_key IS NOT NULL OR status = 'revoked')
                         WHEN 'token' THEN client_public_key IS NULL AND (token_hash IS NOT NULL OR status = 'revoked')
                         ELSE true END),
    CONSTRAINT device_sessions_revoked_says_when_and_why
        CHECK ((status = 'revoked') = (revoked_at IS NOT NULL) AND (status = 'revoked') = (revoke_reason IS NOT NULL))
) WITH (fillfactor = 85);  -- that it was seen is written into the same page, and into no index
COMMENT ON TABLE backend.device_sessions IS 'A signed-in device of a person.';
COMMENT ON COLUMN backend.device_sessions.client_public_key IS 'Ed25519, 32 bytes; the gateway checks signatures with it.';
COMMENT ON COLUMN backend.device_sessions.token_hash IS 'SHA-256 of the bearer token, which was shown once and is not kept.';
-- A person's sessions newest first, in pages; and revoke-all.
CREATE INDEX device_sessions_by_user ON backend.device_sessions (user_id, device_session_id);
CREATE UNIQUE INDEX device_sessions_token_is_unique ON backend.device_sessions (token_hash) WHERE token_hash IS NOT NULL;
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF status ON backend.device_sessions
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('device_session', 'status');
CREATE TRIGGER touch BEFORE UPDATE ON backend.device_sessions FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE FUNCTION backend.session_json(p_session backend.device_sessions) RETURNS json
LANGUAGE sql STABLE SECURITY INVOKER
RETURN json_build_object(
    'device_session_id', p_session.device_session_id,
    'user_id', p_session.user_id,
    'kind', p_session.kind,
    'status', p_session.status,
    'client_public_key', encode(p_session.client_public_key, 'base64'),
    'created_at', backend.ts(p_session.created_at),
    'revoked_at', backend.ts(p_session.revoked_at),
    'revoke_reason', p_session.revoke_reason
);
COMMENT ON FUNCTION backend.session_json(backend.device_sessions) IS
    'The session object of the contract. Without last_seen_at: the bytes of an active session must not change.';

CREATE FUNCTION backend.session_revoke(p_device_session_id uuid, p_reason text) RETURNS backend.device_sessions
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_session device_sessions%ROWTYPE;
BEGIN
    -- The row is locked: of two who revoke at once, one tells the gateways and the other finds it done.
    SELECT * INTO v_session FROM device_sessions WHERE device_session_id = p_device_session_id FOR NO KEY UPDATE;
    IF v_session.status = 'active' THEN
        UPDATE device_sessions SET status = 'revoked', revoked_at = backend.now(), revoke_reason = p_reason
         WHERE device_session_id = p_device_session_id
        RETURNING * INTO v_session;
        PERFORM push_session_invalidation(v_session.user_id, v_session.device_session_id, p_reason);
    END IF;
    RETURN v_session;
END;
$$;
COMMENT ON FUNCTION backend.session_revoke(uuid, text) IS
    'Revokes a session and tells the gateways; one that is revoked already stays as it is. Null when there is none.';

CREATE FUNCTION backend.session_revoke_all(p_user_id uuid, p_reason text) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    -- The account first, as whoever opens a session does: one that is being opened is either revoked here or comes after.
    PERFORM FROM accounts WHERE user_id = p_user_id FOR NO KEY UPDATE;
    -- In the order of the key, so that two batches cannot wait for each other.
    PERFORM FROM device_sessions WHERE user_id = p_user_id AND status = 'active' ORDER BY device_session_id FOR NO KEY UPDATE;
    UPDATE device_sessions SET status = 'revoked', revoked_at = backend.now(), revoke_reason = p_reason
     WHERE user_id = p_user_id AND status = 'active';
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count > 0 THEN
        PERFORM push_session_invalidation(p_user_id, NULL, p_reason);
    END IF;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION backend.session_revoke_all(uuid, text) IS
    'Revokes every active session of a person with one invalidation, none for none; returns how many.';

CREATE VIEW backend.invariants_sessions AS
SELECT 'active_session_of_a_closed_account' AS invariant, s.device_session_id AS object_id, s.user_id::text AS details
  FROM backend.device_sessions AS s JOIN backend.accounts AS a USING (user_id)
 WHERE s.status = 'active' AND (a.deleted_at IS NOT NULL OR a.permanent_block);
COMMENT ON VIEW backend.invariants_sessions IS 'What must never be seen in sessions.';

COMMIT;
