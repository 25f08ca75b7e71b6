-- Deploy galaxy-backend:backend/invariants to pg
-- requires: backend/schemas

-- Why: what must always hold is written down as a query for what breaks it. An area adds a view named
-- backend.invariants_<area> with the columns (invariant, object_id, details); this view is the union of all of them. It is
-- found from the catalog, so that a new area adds and nobody rewrites.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.invariants_collect()
RETURNS TABLE (invariant text, object_id text, details text)
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_view name;
BEGIN
    FOR v_view IN
        SELECT c.relname FROM pg_class AS c
         WHERE c.relnamespace = 'backend'::regnamespace AND c.relkind = 'v' AND c.relname LIKE 'invariants\_%'
         ORDER BY c.relname
    LOOP
        RETURN QUERY EXECUTE format(
            'SELECT v.invariant::text, v.object_id::text, v.details::text FROM backend.%I AS v', v_view);
    END LOOP;
END;
$$;
COMMENT ON FUNCTION backend.invariants_collect() IS 'Every row of every view backend.invariants_<area>.';

CREATE VIEW backend.invariants AS
SELECT c.invariant, c.object_id, c.details FROM backend.invariants_collect() AS c;
COMMENT ON VIEW backend.invariants IS 'Every violation of what must always hold. Empty, or something is wrong.';

COMMIT;
