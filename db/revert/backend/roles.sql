-- Revert galaxy-backend:backend/roles from pg

-- Roles belong to the whole cluster. A login has nothing of its own, so what tells whether another database uses it is whether
-- its door's role has anything there; the two go, or stay, together.

BEGIN;

DO $$
DECLARE
    v_door text;
BEGIN
    FOREACH v_door IN ARRAY ARRAY['api', 'worker', 'push', 'owner'] LOOP
        BEGIN
            EXECUTE format('DROP ROLE IF EXISTS %I', 'backend_' || v_door);
            IF v_door <> 'owner' THEN
                EXECUTE format('DROP ROLE IF EXISTS %I', 'galaxy_' || v_door);
            END IF;
        EXCEPTION WHEN dependent_objects_still_exist THEN
            RAISE NOTICE 'the roles of % stay: another database uses them', v_door;
        END;
    END LOOP;
END;
$$;

COMMIT;
