-- Deploy galaxy-backend:worker/maintenance to pg
-- requires: backend/auth
-- requires: backend/budgets
-- requires: backend/administrators
-- requires: backend/push
-- requires: backend/idempotency

-- Why: growth is bounded by what is live, not by age. Each function deletes one batch and returns its size; a job calls it until
-- a batch is not full.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION worker.challenges_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM auth_challenges AS c
     WHERE c.challenge_id = ANY (ARRAY(
         SELECT o.challenge_id FROM auth_challenges AS o
          WHERE o.expires_at < backend.now() - interval '1 day'
          ORDER BY o.expires_at LIMIT p_limit
            FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.challenges_purge(integer) IS
    'Deletes at most so many challenges that expired over a day ago; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.auth_budgets_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    -- Picked once: as a part of the condition it might be asked more than once, and pick more.
    WITH old AS MATERIALIZED (
         SELECT o.budget, o.key_hash FROM auth_budgets AS o
          WHERE o.expires_at <= backend.now()
          ORDER BY o.expires_at LIMIT p_limit
            FOR UPDATE SKIP LOCKED
    )
    DELETE FROM auth_budgets AS t USING old AS o WHERE t.budget = o.budget AND t.key_hash = o.key_hash;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.auth_budgets_purge(integer) IS
    'Deletes at most so many budgets that are over; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.admin_attempts_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM admin_attempts AS t
     WHERE t.key_hash = ANY (ARRAY(
         SELECT o.key_hash FROM admin_attempts AS o
          WHERE o.expires_at <= backend.now()
          ORDER BY o.expires_at LIMIT p_limit
            FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.admin_attempts_purge(integer) IS
    'Deletes at most so many counts of wrong passwords that are over; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.idempotency_keys_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    -- Picked once: as a part of the condition it might be asked more than once, and pick more.
    WITH old AS MATERIALIZED (
         SELECT o.caller, o.operation, o.request_key FROM idempotency_keys AS o
          WHERE o.created_at <= backend.now() - interval '1 day'
          ORDER BY o.created_at LIMIT p_limit
            FOR UPDATE SKIP LOCKED
    )
    DELETE FROM idempotency_keys AS k USING old AS o WHERE k.caller = o.caller AND k.operation = o.operation AND k.request_key = o.request_key;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.idempotency_keys_purge(integer) IS
    'Deletes at most so many answers that are a day old; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.push_events_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_kept_since timestamptz := backend.now() - setting_interval('freshness_window') - interval '1 minute';
    v_through bigint;
    v_count integer;
BEGIN
    -- The oldest, without a hole: up to the first that is still wanted.
    WITH oldest AS MATERIALIZED (
        -- From where the last batch ended: what it deleted may be in the index for long.
        SELECT e.position, e.sequenced_at FROM push_events AS e
         WHERE e.position > (SELECT p.purged_through FROM push_epoch AS p)
         ORDER BY e.position LIMIT p_limit
    )
    SELECT max(o.position) INTO v_through FROM oldest AS o
     WHERE o.position < coalesce((SELECT min(w.position) FROM oldest AS w WHERE w.sequenced_at > v_kept_since), 9223372036854775807);
    IF v_through IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM push_events AS e WHERE e.position > (SELECT p.purged_through FROM push_epoch AS p) AND e.position <= v_through;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    UPDATE push_epoch SET purged_through = greatest(purged_through, v_through);
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.push_events_purge(integer) IS
    'Deletes at most so many of the oldest events that have left the window and a minute; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.invariants_list() RETURNS TABLE (invariant text, object_id text, details text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT i.invariant, i.object_id, i.details FROM invariants AS i;
END;
$$;
COMMENT ON FUNCTION worker.invariants_list() IS 'Every violation of what must always hold. Raises nothing of its own.';

COMMIT;
