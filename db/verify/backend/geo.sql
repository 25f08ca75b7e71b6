-- Verify galaxy-backend:backend/geo on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT user_id, country, requests, first_seen_at, last_seen_at, created_at, updated_at FROM backend.user_country_counters WHERE false;

DO $$
DECLARE
    v_user_id uuid := (backend.account_create('telegram', 'verify', NULL, 'en', 'UTC', NULL)).user_id;
BEGIN
    INSERT INTO backend.user_country_counters (user_id, country, requests, first_seen_at, last_seen_at)
    VALUES (v_user_id, 'DE', 1, backend.now(), backend.now());
    PERFORM backend.account_delete(v_user_id);
    ASSERT NOT EXISTS (SELECT FROM backend.user_country_counters WHERE user_id = v_user_id), 'counters outlive their person';
    PERFORM FROM backend.invariants_geo;
END;
$$;

ROLLBACK;
