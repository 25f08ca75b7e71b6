-- Deploy galaxy-backend:api/service to pg
-- requires: backend/errors

-- Why: what the HTTP program asks for itself: whether the schema is new enough, and what a constraint's refusal means.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.schema_changes() RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT c.change_id::text FROM sqitch.changes AS c WHERE c.project = 'galaxy-backend';
END;
$$;
COMMENT ON FUNCTION api.schema_changes() IS 'The ids of the deployed Sqitch changes. Raises nothing of its own.';

CREATE FUNCTION api.constraint_errors()
RETURNS TABLE (constraint_name text, status integer, code text, message text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT e.constraint_name, e.status, e.code, e.message FROM constraint_errors AS e;
END;
$$;
COMMENT ON FUNCTION api.constraint_errors() IS 'What a caller is told when a constraint refuses. Raises nothing of its own.';

COMMIT;
