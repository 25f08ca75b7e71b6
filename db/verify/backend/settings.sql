-- Verify galaxy-backend:backend/settings on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
BEGIN
    ASSERT backend.setting('challenge_max_attempts') > 0, 'backend.setting() does not answer';
    ASSERT backend.setting_interval('challenge_ttl') > '0', 'backend.setting_interval() does not answer';
    PERFORM 'backend.settings'::regclass;
END;
$$;

ROLLBACK;
