-- Deploy galaxy-backend:api/auth to pg
-- requires: backend/auth
-- requires: backend/budgets

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.email_code_send(p_body jsonb, p_code text, p_code_hash bytea, p_source_ip inet) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_email text := email_normalise(p_body ->> 'email');
    v_source bytea := budget_key('address', v_email, source_network(p_source_ip, 24));
    v_ttl interval := setting_interval('challenge_ttl');
    v_account accounts%ROWTYPE;
    v_live bigint;
    v_refused text;
    -- Of a challenge that is made, or else of none: an id that opens nothing looks like any other.
    v_challenge_id uuid := uuid_v7();
    v_reused_id uuid;
BEGIN
    IF v_email IS NULL THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.',
                     '[{"path": "email", "problem": "is not an e-mail address"}]');
    END IF;
    -- Of those who ask at once for one address, one after another is counted.
    PERFORM identity_lock('email', v_email);
    SELECT a.* INTO v_account FROM identities AS i JOIN accounts AS a USING (user_id) WHERE i.provider = 'email' AND i.subject = v_email;
    IF v_account.permanent_block OR EXISTS (SELECT FROM blocked_emails AS b WHERE b.email = v_email) THEN
        PERFORM fail(400, 'email_blocked', 'This address cannot be used.');
    END IF;
    -- Of this network alone, here and below: who asks in somebody's stead neither uses up their challenges nor is told of them.
    SELECT count(*) INTO v_live FROM auth_challenges AS c
     WHERE c.email = v_email AND c.source_hash = v_source AND c.consumed_at IS NULL AND c.expires_at > backend.now()
       AND c.created_at > backend.now() - setting_interval('challenge_throttle_window');
    v_refused := code_mail_spend(v_email, p_source_ip, v_account.user_id IS NOT NULL, v_live >= setting('challenge_throttle_max'));
    IF v_refused IS NULL THEN
        INSERT INTO auth_challenges (challenge_id, email, source_hash, code_hash, language, expires_at)
        VALUES (v_challenge_id, v_email, v_source, code_hash(v_challenge_id, p_code_hash),
                lower(substring(p_body ->> 'locale' FROM '^([A-Za-z]{2,8})(?![A-Za-z])')), backend.now() + v_ttl);
        PERFORM mail_enqueue(
            'auth.login_code', v_challenge_id::text, ARRAY[v_email],
            jsonb_build_object('code', p_code, 'minutes', ceil(extract(epoch FROM v_ttl) / 60)::integer),
            NULL, backend.now() + v_ttl);
    ELSIF v_refused <> 'network' THEN
        UPDATE auth_challenges SET requests = requests + 1
         WHERE challenge_id = (
             SELECT c.challenge_id FROM auth_challenges AS c
              WHERE c.email = v_email AND c.source_hash = v_source AND c.consumed_at IS NULL AND c.expires_at > backend.now()
                AND (v_refused = 'throttle' OR c.attempts < setting('challenge_max_attempts'))
              ORDER BY c.created_at DESC, c.challenge_id DESC LIMIT 1)
        RETURNING challenge_id INTO v_reused_id;
    END IF;
    RETURN json_build_object('challenge_id', coalesce(v_reused_id, v_challenge_id))::text;
END;
$$;
COMMENT ON FUNCTION api.email_code_send(jsonb, text, bytea, inet) IS
    'Mails a sign-in code; where the address is throttled or a budget is used up, uses a live challenge of the same network again or names one that is not there. The answer does not tell which. GX400 invalid_request, email_blocked.';

CREATE FUNCTION api.email_code_confirm(p_body jsonb, p_code_hash bytea, p_source_country text, p_source_ip inet) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_challenge_id uuid := (p_body ->> 'challenge_id')::uuid;
    v_time_zone text := p_body ->> 'time_zone';
    v_challenge auth_challenges%ROWTYPE;
    v_account accounts%ROWTYPE;
    v_session_id uuid;
BEGIN
    IF NOT EXISTS (SELECT FROM time_zones AS z WHERE z.time_zone = v_time_zone) THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.',
                     '[{"path": "time_zone", "problem": "is not a known IANA time zone"}]');
    END IF;
    SELECT * INTO v_challenge FROM auth_challenges WHERE challenge_id = v_challenge_id;
    IF NOT FOUND THEN
        RETURN refusal(400, 'invalid_code', 'The code is not valid.');
    END IF;
    -- The way in and its account before the challenge: the order in which everybody locks.
    PERFORM identity_lock('email', v_challenge.email);
    v_account := account_find('email', v_challenge.email);
    SELECT * INTO v_challenge FROM auth_challenges WHERE challenge_id = v_challenge_id FOR NO KEY UPDATE;
    IF v_challenge.challenge_id IS NULL OR v_challenge.consumed_at IS NOT NULL OR is_over(v_challenge.expires_at)
       OR v_challenge.attempts >= setting('challenge_max_attempts')
       OR NOT code_may_be_tried(v_challenge.email, p_source_ip)
    THEN
        RETURN refusal(400, 'invalid_code', 'The code is not valid.');
    END IF;
    -- Counted before it is compared, and kept whatever comes of it: that is why the refusal is returned and not raised.
    UPDATE auth_challenges SET attempts = attempts + 1 WHERE challenge_id = v_challenge_id;
    IF code_hash(v_challenge_id, p_code_hash) <> v_challenge.code_hash THEN
        PERFORM code_was_wrong(v_challenge.email, p_source_ip);
        RETURN refusal(400, 'invalid_code', 'The code is not valid.');
    END IF;
    UPDATE auth_challenges SET consumed_at = backend.now() WHERE challenge_id = v_challenge_id;
    PERFORM code_was_right(v_challenge.email);
    IF EXISTS (SELECT FROM blocked_emails AS b WHERE b.email = v_challenge.email) THEN
        -- Blocked since the mail went out.
        RETURN refusal(403, 'account_blocked', 'This address may not sign in.');
    ELSIF v_account.user_id IS NULL THEN
        v_account := account_create('email', v_challenge.email, v_challenge.email, v_challenge.language, v_time_zone, p_source_country);
    ELSIF v_account.permanent_block THEN
        RETURN refusal(403, 'account_blocked', 'This account is blocked for good.');
    ELSIF is_sanctioned(v_account.user_id, 'login_block') THEN
        RETURN refusal(403, 'sanctioned', 'This account may not sign in at present.', '{"sanction": "login_block"}');
    END IF;
    INSERT INTO device_sessions (user_id, kind, client_public_key)
    VALUES (v_account.user_id, 'key', decode(p_body ->> 'client_public_key', 'base64'))
    RETURNING device_session_id INTO v_session_id;
    RETURN ROW(200, json_build_object('device_session_id', v_session_id)::text, NULL)::api.reply;
END;
$$;
COMMENT ON FUNCTION api.email_code_confirm(jsonb, bytea, text, inet) IS
    'Opens a device session for a right code, once; the account is made if it is the first. Returns 400 invalid_code, 403 account_blocked, sanctioned. GX400 invalid_request, GX503 unavailable.';

COMMIT;
