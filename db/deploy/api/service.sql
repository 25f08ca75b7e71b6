-- Deploy galaxy-backend:api/service to pg
-- requires: backend/errors
-- requires: backend/push

-- Why: what the HTTP program asks for itself: whether the schema is new enough, what a constraint's refusal means, and whether the
-- other programs work.

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

-- Why fifteen seconds: each is heard of every four; a worker that was not for so long counts as dead for its jobs as well.
CREATE FUNCTION api.program_is_heard(p_program text) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE p_program
        WHEN 'push' THEN EXISTS (SELECT FROM push_heartbeat AS h WHERE h.seen_at > backend.now() - interval '15 seconds')
        -- Procrastinate's times are the server's own.
        WHEN 'worker' THEN EXISTS (SELECT FROM procrastinate_workers AS w
                                    WHERE w.last_heartbeat > transaction_timestamp() - interval '15 seconds')
    END;
END;
$$;
COMMENT ON FUNCTION api.program_is_heard(text) IS
    'Whether any push or worker was heard of lately; null for another program. Raises nothing of its own.';

COMMIT;
