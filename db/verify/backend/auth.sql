-- Verify galaxy-backend:backend/auth on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT challenge_id, email, source_hash, code_hash, language, attempts, requests, expires_at, consumed_at FROM backend.auth_challenges WHERE false;
SELECT email, reason, actor FROM backend.blocked_emails WHERE false;

DO $$
BEGIN
    ASSERT backend.email_normalise(' Ann.B+c@Example.ORG ') = 'ann.b+c@example.org', 'an address is not normalised';
    ASSERT backend.email_normalise('a..b@example.org') IS NULL, 'a bad address is taken for a good one';
    ASSERT length(backend.code_hash(gen_random_uuid(), '\x00')) = 32, 'codes are not hashed';
END;
$$;

ROLLBACK;
