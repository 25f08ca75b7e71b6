-- Deploy galaxy-backend:worker/entitlements to pg
-- requires: backend/accounts

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION worker.entitlements_settle(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_user_id uuid;
    v_count integer := 0;
BEGIN
    -- The account, not the snapshot: that is what a grant holds too. One that is held is settled by whoever holds it, or next time.
    FOR v_user_id IN
        SELECT a.user_id FROM entitlement_snapshots AS s JOIN accounts AS a USING (user_id)
         WHERE s.changes_at <= backend.now()
         ORDER BY s.changes_at, a.user_id
         LIMIT p_limit
           FOR NO KEY UPDATE OF a SKIP LOCKED
    LOOP
        PERFORM entitlement_settle(v_user_id);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.entitlements_settle(integer) IS
    'Writes down what has come into force, for at most so many people; returns for how many. Raises nothing of its own.';

COMMIT;
