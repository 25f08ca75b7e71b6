-- Deploy galaxy-backend:backend/runtime_rules to pg
-- requires: backend/game_rules

-- Why: whoever works on an engine holds a lease, and what they report counts while it is the newest.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.runtime_held(p_game_id uuid, p_lease_number bigint) RETURNS backend.runtime_records
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE;
BEGIN
    -- The game before its engine: the order in which everybody locks.
    PERFORM game_lock(p_game_id);
    SELECT * INTO v_runtime FROM runtime_records
     WHERE game_id = p_game_id AND lease_number = p_lease_number AND lease_until IS NOT NULL
       FOR NO KEY UPDATE;
    RETURN v_runtime;
END;
$$;
COMMENT ON FUNCTION backend.runtime_held(uuid, bigint) IS
    'The runtime that a lease is for, locked, its game first; null when another lease has been given, or this one has been handed in.';

CREATE FUNCTION backend.runtime_operation_end(p_game_id uuid, p_lease_number bigint, p_outcome text, p_error text) RETURNS void
LANGUAGE sql VOLATILE SECURITY INVOKER
BEGIN ATOMIC
    UPDATE backend.runtime_operation_log SET finished_at = backend.now(), outcome = p_outcome, error = left(p_error, 1000)
     WHERE game_id = p_game_id AND lease_number = p_lease_number AND finished_at IS NULL;
END;
COMMENT ON FUNCTION backend.runtime_operation_end(uuid, bigint, text, text) IS 'What came of the operation of a lease.';

CREATE FUNCTION backend.runtime_snapshot(p_game_id uuid, p_turn integer, p_players jsonb, p_lease_number bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO game_turns (game_id, turn, players, lease_number) VALUES (p_game_id, p_turn, p_players, p_lease_number)
    ON CONFLICT (game_id, turn) DO NOTHING;
    UPDATE memberships AS m
       SET planets = s.planets, population = s.population,
           initial_planets = coalesce(m.initial_planets, s.planets),
           initial_population = coalesce(m.initial_population, s.population),
           max_planets = greatest(m.max_planets, s.planets),
           max_population = greatest(m.max_population, s.population)
      FROM jsonb_to_recordset(p_players) AS s ("raceName" text, planets integer, population numeric)
     -- Not of somebody who had left before the start, under a name that another plays now.
     WHERE m.game_id = p_game_id AND m.race_name = s."raceName" AND seat_is_played(m);
END;
$$;
COMMENT ON FUNCTION backend.runtime_snapshot(uuid, integer, jsonb, bigint) IS
    'Stores a turn, once, and how each race fares; called for newer turns only.';

CREATE FUNCTION backend.runtime_json(p_runtime backend.runtime_records) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'game_id', p_runtime.game_id,
    'wanted', p_runtime.wanted,
    'status', p_runtime.status,
    'generation', p_runtime.generation,
    'engine_version', p_runtime.engine_version,
    'image_ref', p_runtime.image_ref,
    'container_id', p_runtime.container_id,
    'endpoint', p_runtime.endpoint,
    'current_turn', p_runtime.current_turn,
    'next_turn_at', backend.ts(p_runtime.next_turn_at),
    'skip_next_turn', p_runtime.skip_next_turn,
    'started_at', backend.ts(p_runtime.started_at),
    'last_observed_at', backend.ts(p_runtime.last_observed_at)
);
COMMENT ON FUNCTION backend.runtime_json(backend.runtime_records) IS 'The runtime object of the contract, without its operations and health.';

COMMIT;
