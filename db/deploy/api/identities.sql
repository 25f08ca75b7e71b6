-- Deploy galaxy-backend:api/identities to pg
-- requires: backend/account_deletion

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.identity_session_open(
    p_provider text, p_body jsonb, p_token text, p_token_hash bytea, p_source_country text
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_subject text := p_body ->> 'subject';
    v_time_zone text := coalesce(p_body ->> 'time_zone', 'UTC');
    v_account accounts%ROWTYPE;
    v_is_new boolean;
    v_session_id uuid;
BEGIN
    IF NOT EXISTS (SELECT FROM time_zones AS z WHERE z.time_zone = v_time_zone) THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.',
                     '[{"path": "time_zone", "problem": "is not a known IANA time zone"}]');
    END IF;
    -- Of those who come at once for the first time, one makes the account and the others find it. A name keeps nobody out: the
    -- provider let them choose it.
    PERFORM identity_lock(p_provider, v_subject);
    v_account := account_find(p_provider, v_subject);
    v_is_new := v_account.user_id IS NULL;
    IF v_is_new THEN
        v_account := account_create(
            p_provider, v_subject, NULL, lower(substring(p_body ->> 'locale' FROM '^([A-Za-z]{2,8})(?![A-Za-z])')), v_time_zone,
            p_source_country, p_body ->> 'display_name');
    ELSE
        PERFORM block_refuse(v_account);
    END IF;
    INSERT INTO device_sessions (user_id, kind, token_hash) VALUES (v_account.user_id, 'token', p_token_hash)
    RETURNING device_session_id INTO v_session_id;
    -- The token is shown here, once.
    RETURN json_build_object('user_id', v_account.user_id, 'device_session_id', v_session_id, 'token', p_token, 'created', v_is_new)::text;
END;
$$;
COMMENT ON FUNCTION api.identity_session_open(text, jsonb, text, bytea, text) IS
    'Opens a session with a bearer token for somebody whom the gateway has verified; the account is made if it is the first. GX400 invalid_request, GX403 account_blocked, sanctioned, GX503 unavailable.';

CREATE FUNCTION api.identity_link(p_user_id uuid, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_provider text := p_body ->> 'provider';
    v_subject text := CASE
        WHEN v_provider = 'email' THEN email_normalise(p_body ->> 'subject')
        WHEN p_body ->> 'subject' !~ '\s' THEN p_body ->> 'subject'
    END;
    v_account accounts%ROWTYPE;
    v_holder_id uuid;
BEGIN
    IF v_subject IS NULL THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.',
                     '[{"path": "subject", "problem": "is none of this provider"}]');
    END IF;
    PERFORM identity_lock(v_provider, v_subject);
    SELECT * INTO v_account FROM accounts WHERE user_id = p_user_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'account_not_found', 'There is no such account.');
    ELSIF v_provider = 'email' AND EXISTS (SELECT FROM blocked_emails AS b WHERE b.email = v_subject) THEN
        PERFORM fail(400, 'email_blocked', 'This address cannot be used.');
    ELSIF v_account.deleted_at IS NOT NULL THEN
        PERFORM fail(409, 'conflict', 'This account has been deleted.');
    END IF;
    SELECT i.user_id INTO v_holder_id FROM identities AS i WHERE i.provider = v_provider AND i.subject = v_subject;
    -- Who has it is told so again, also while they are blocked.
    IF v_holder_id IS DISTINCT FROM p_user_id THEN
        PERFORM block_refuse(v_account);
        IF v_holder_id IS NOT NULL THEN
            PERFORM fail(409, 'identity_taken', 'This way in belongs to another account.');
        ELSIF EXISTS (SELECT FROM identities AS i WHERE i.user_id = p_user_id AND i.provider = v_provider) THEN
            PERFORM fail(409, 'conflict', 'This account has another way in of the same kind.');
        END IF;
        INSERT INTO identities (provider, subject, user_id) VALUES (v_provider, v_subject, p_user_id);
        IF v_provider = 'email' THEN
            UPDATE accounts SET email = v_subject WHERE user_id = p_user_id;
        END IF;
    END IF;
    RETURN ROW(
        201,
        json_build_object('provider', v_provider, 'subject', v_subject)::text,
        format('/api/v1/internal/users/%s/account-internal', p_user_id)
    )::api.reply;
END;
$$;
COMMENT ON FUNCTION api.identity_link(uuid, jsonb) IS
    'Gives an account one more way in; again changes nothing. GX400 invalid_request, email_blocked, GX403 account_blocked, sanctioned, GX404 account_not_found, GX409 conflict, identity_taken.';

CREATE FUNCTION api.identity_unlink(p_user_id uuid, p_provider text) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
BEGIN
    -- Before the row: nobody asks for a code meanwhile, which would be left.
    PERFORM ways_in_lock(p_user_id);
    -- Locked: of two who unlink at once, the second counts what the first has left.
    SELECT * INTO v_account FROM accounts WHERE user_id = p_user_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'account_not_found', 'There is no such account.');
    ELSIF v_account.deleted_at IS NOT NULL THEN
        PERFORM fail(409, 'conflict', 'This account has been deleted.');
    ELSIF NOT EXISTS (SELECT FROM identities AS i WHERE i.user_id = p_user_id AND i.provider = p_provider) THEN
        PERFORM fail(404, 'identity_not_found', 'This account has no such way in.');
    END IF;
    -- Whoever is blocked frees no way in, to come back by it as somebody else.
    PERFORM block_refuse(v_account);
    IF NOT EXISTS (SELECT FROM identities AS i WHERE i.user_id = p_user_id AND i.provider <> p_provider) THEN
        PERFORM fail(409, 'last_identity', 'Without its last way in nobody could use the account.');
    END IF;
    DELETE FROM identities AS i WHERE i.user_id = p_user_id AND i.provider = p_provider;
    IF p_provider = 'email' THEN
        UPDATE accounts SET email = NULL WHERE user_id = p_user_id;
        -- When the account is deleted one day, nothing leads from it to this address any more.
        PERFORM mail_forget(p_user_id, code_mails(ARRAY[v_account.email]));
        DELETE FROM auth_challenges WHERE email = v_account.email;
    END IF;
    RETURN ROW(204, NULL, NULL)::api.reply;
END;
$$;
COMMENT ON FUNCTION api.identity_unlink(uuid, text) IS
    'Takes a way in from an account that has another one, and forgets the login codes of an address. GX403 account_blocked, sanctioned, GX404 account_not_found, identity_not_found, GX409 conflict, last_identity.';

COMMIT;
