-- Deploy galaxy-backend:push/service to pg
-- requires: backend/schemas

-- Why: each program compares the deployed changes with its own plan before it serves.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION push.schema_changes() RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT c.change_id::text FROM sqitch.changes AS c WHERE c.project = 'galaxy-backend';
END;
$$;
COMMENT ON FUNCTION push.schema_changes() IS 'The ids of the deployed Sqitch changes. Raises nothing of its own.';

COMMIT;
