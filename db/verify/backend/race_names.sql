-- Verify galaxy-backend:backend/race_names on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT race_name_id, canonical, race_name, user_id, tier, expires_at, registered_at, released_at FROM backend.race_names WHERE false;

DO $$
DECLARE
    v_ann uuid := (backend.account_create('telegram', 'verify-a', NULL, 'en', 'UTC', NULL)).user_id;
    v_bob uuid := (backend.account_create('telegram', 'verify-b', NULL, 'en', 'UTC', NULL)).user_id;
BEGIN
    ASSERT backend.race_name_reserve(v_ann, ' Zorg  Verify ') = 'Zorg Verify', 'a name is not cleaned';
    BEGIN
        PERFORM backend.race_name_reserve(v_bob, 'Z0RG-VERIFY');
        ASSERT false, 'one name has two holders';
    EXCEPTION WHEN SQLSTATE 'GX422' THEN
        NULL;
    END;
    PERFORM 'backend.race_name_canonical(text)'::regprocedure;
    PERFORM 'backend.race_name_clean(text)'::regprocedure;
END;
$$;

ROLLBACK;
