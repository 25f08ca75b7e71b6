-- Deploy galaxy-backend:backend/auth to pg
-- requires: backend/mail_templates
-- requires: backend/sessions

-- Why: signing in by a code that is mailed. The database keeps only a hash that it cannot compute by itself (the pepper is the
-- app's), salted with the challenge.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.auth_challenges (
    challenge_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    email text NOT NULL CONSTRAINT auth_challenges_email_is_normalised CHECK (email = lower(email) AND length(email) <= 254),
    source_hash bytea NOT NULL CONSTRAINT auth_challenges_source_hash_has_32_bytes CHECK (length(source_hash) = 32),
    code_hash bytea NOT NULL CONSTRAINT auth_challenges_code_hash_has_32_bytes CHECK (length(code_hash) = 32),
    language text,
    attempts integer NOT NULL DEFAULT 0,
    requests integer NOT NULL DEFAULT 1,
    expires_at timestamptz NOT NULL,
    consumed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT auth_challenges_expire_after_they_start CHECK (expires_at > created_at)
);
COMMENT ON TABLE backend.auth_challenges IS 'A code that was mailed, or asked for while it was throttled.';
COMMENT ON COLUMN backend.auth_challenges.source_hash IS 'The address and the network that asked, as budgets know them: from elsewhere it is never used again.';
COMMENT ON COLUMN backend.auth_challenges.code_hash IS 'SHA-256 over the id and the app''s HMAC of the code.';
COMMENT ON COLUMN backend.auth_challenges.attempts IS 'How many codes were compared with it.';
COMMENT ON COLUMN backend.auth_challenges.requests IS 'How often a code was asked for that this challenge answered.';
-- The live ones of an address are counted and the newest found.
CREATE INDEX auth_challenges_by_email ON backend.auth_challenges (email, created_at);
-- Retention.
CREATE INDEX auth_challenges_by_expiry ON backend.auth_challenges (expires_at);

CREATE TRIGGER touch BEFORE UPDATE ON backend.auth_challenges FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.blocked_emails (
    email text PRIMARY KEY CONSTRAINT blocked_emails_email_is_normalised CHECK (email = lower(email) AND length(email) <= 254),
    reason text,
    actor text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.blocked_emails IS 'Addresses that may never sign in.';

CREATE FUNCTION backend.email_normalise(p_email text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_given text := btrim(p_email, E' \t\r\n');
    v_email text := lower(v_given);
BEGIN
    -- Before lower(), which makes ASCII of some letters that only look like it.
    IF v_given ~ '[^\x21-\x7e]' THEN
        RETURN NULL;
    END IF;
    -- RFC 5321 without quoted local parts and address literals, which nobody registers with: dot-atoms on the left, a domain of
    -- two labels or more on the right, 64 and 253 octets at most.
    IF v_email ~ '^[a-z0-9!#$%&''*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&''*+/=?^_`{|}~-]+)*@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$'
       AND length(split_part(v_email, '@', 1)) <= 64 AND length(v_email) <= 254
    THEN
        RETURN v_email;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION backend.email_normalise(text) IS 'An address trimmed and in lower case; null for what is not one.';

CREATE FUNCTION backend.code_hash(p_challenge_id uuid, p_code_hash bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN sha256(uuid_send(p_challenge_id) || p_code_hash);
COMMENT ON FUNCTION backend.code_hash(uuid, bytea) IS
    'What is stored of a code. Salted with the challenge: equal codes differ, and how long a comparison takes tells nothing that could be steered.';

COMMIT;
