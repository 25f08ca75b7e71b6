-- Revert galaxy-backend:backend/roles from pg

BEGIN;

-- The grants that the schemas' change left to these roles in this database, so that nothing here holds them.
DO $$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['galaxy_api', 'galaxy_worker', 'galaxy_push',
                                  'backend_api', 'backend_worker', 'backend_push', 'backend_owner'] LOOP
        BEGIN
            EXECUTE format('DROP ROLE %I', v_role);
        EXCEPTION
            WHEN dependent_objects_still_exist THEN
                RAISE NOTICE 'role % stays: another database uses it', v_role;
            WHEN undefined_object THEN
                RAISE NOTICE 'role % is gone already', v_role;
        END;
    END LOOP;
END;
$$;

COMMIT;
