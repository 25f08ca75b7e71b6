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

CREATE FUNCTION backend.runtime_operation_begin(p_runtime backend.runtime_records, p_operation text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE runtime_operation_log SET finished_at = backend.now(), outcome = 'failed', error = 'nobody has told what came of it'
     WHERE game_id = p_runtime.game_id AND lease_number < p_runtime.lease_number AND finished_at IS NULL;
    INSERT INTO runtime_operation_log (game_id, operation, generation, lease_number)
    VALUES (p_runtime.game_id, p_operation, p_runtime.generation, p_runtime.lease_number);
END;
$$;
COMMENT ON FUNCTION backend.runtime_operation_begin(backend.runtime_records, text) IS
    'Something is about to be done to an engine under its newest lease; what was begun under an older one is over.';

CREATE FUNCTION backend.runtime_operation_done(p_runtime backend.runtime_records, p_operation text, p_error text DEFAULT NULL) RETURNS void
LANGUAGE sql VOLATILE SECURITY INVOKER
BEGIN ATOMIC
    INSERT INTO backend.runtime_operation_log (game_id, operation, generation, lease_number, finished_at, outcome, error)
    SELECT p_runtime.game_id, p_operation, p_runtime.generation, p_runtime.lease_number, backend.now(),
           CASE WHEN p_error IS NULL THEN 'done' ELSE 'failed' END, left(p_error, 1000)
     -- By the first line: after it comes what the engine wrote, which is never the same.
     WHERE p_error IS NULL OR (p_operation, p_runtime.generation, split_part(left(p_error, 1000), E'\n', 1)) IS DISTINCT FROM (
        SELECT ROW(l.operation, l.generation, split_part(l.error, E'\n', 1)) FROM backend.runtime_operation_log AS l
         WHERE l.game_id = p_runtime.game_id ORDER BY l.operation_id DESC LIMIT 1);
END;
COMMENT ON FUNCTION backend.runtime_operation_done(backend.runtime_records, text, text) IS
    'Something was done to an engine at once; p_error is why it failed, null if it did not. What fails again and again in the same way is written down once.';

CREATE FUNCTION backend.runtime_failure_tell(p_runtime backend.runtime_records, p_kind text, p_error text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM notification_submit(
        'runtime.' || p_kind, p_runtime.game_id || ':' || p_runtime.generation, NULL,
        jsonb_build_object('game_id', p_runtime.game_id) || CASE p_kind
            WHEN 'image_pull_failed' THEN jsonb_build_object('image_ref', p_runtime.image_ref)
            WHEN 'start_config_invalid' THEN jsonb_build_object('reason', coalesce(nullif(left(p_error, 500), ''), 'not told'))
            ELSE '{}'
        END);
END;
$$;
COMMENT ON FUNCTION backend.runtime_failure_tell(backend.runtime_records, text, text) IS
    'Tells the administrators, once for each generation, that an engine could not be started; p_kind: image_pull_failed, container_start_failed, start_config_invalid.';

CREATE FUNCTION backend.runtime_health_note(p_game_id uuid, p_is_healthy boolean, p_details text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO runtime_health_snapshots (game_id, is_healthy, details)
    SELECT p_game_id, p_is_healthy, left(p_details, 500)
     WHERE (p_is_healthy, split_part(left(p_details, 500), E'\n', 1)) IS DISTINCT FROM (
        SELECT ROW(h.is_healthy, split_part(h.details, E'\n', 1)) FROM runtime_health_snapshots AS h WHERE h.game_id = p_game_id ORDER BY h.snapshot_id DESC LIMIT 1);
END;
$$;
COMMENT ON FUNCTION backend.runtime_health_note(uuid, boolean, text) IS
    'How an engine answered, stored where that is another than the last; the game is locked by the caller.';

CREATE FUNCTION backend.runtime_restart(p_game_id uuid, p_operation text, p_version text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    -- Whoever has a lease works on an engine that is not wanted any more: what they report counts for nothing.
    UPDATE runtime_records AS r
       SET status = 'starting', generation = r.generation + 1, start_operation = p_operation, lease_until = NULL,
           next_attempt_at = backend.now() + interval '30 seconds',
           engine_version = coalesce(p_version, r.engine_version),
           image_ref = coalesce((SELECT v.image_ref FROM engine_versions AS v WHERE v.version = p_version), r.image_ref)
     WHERE r.game_id = p_game_id;
    PERFORM job_defer('runtime', 'runtime_start', jsonb_build_object('game_id', p_game_id), 'game:' || p_game_id, 5);
END;
$$;
COMMENT ON FUNCTION backend.runtime_restart(uuid, text, text) IS
    'Another engine is wanted over the same state, of another version if one is told; p_operation: restart, patch. The game is locked by the caller.';

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

CREATE FUNCTION backend.runtime_queue_require() RETURNS void
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    IF runtime_queue_is_full() THEN
        PERFORM fail(503, 'runtime_busy', 'Too many commands to engines wait; try again.');
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.runtime_queue_require() IS 'Refuses where no more commands to engines may wait. GX503 runtime_busy.';

CREATE FUNCTION backend.runtime_of_running_game(p_game backend.games) RETURNS backend.runtime_records
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE;
BEGIN
    IF p_game.game_id IS NULL THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    ELSIF p_game.status NOT IN ('running', 'paused') THEN
        PERFORM fail(409, 'game_not_running', 'This game does not run.', jsonb_build_object('status', p_game.status));
    END IF;
    SELECT * INTO v_runtime FROM runtime_records WHERE game_id = p_game.game_id FOR NO KEY UPDATE;
    IF v_runtime.status = 'starting' THEN
        PERFORM fail(409, 'invalid_transition', 'Its engine is being started already.', jsonb_build_object('from', v_runtime.status));
    END IF;
    RETURN v_runtime;
END;
$$;
COMMENT ON FUNCTION backend.runtime_of_running_game(backend.games) IS
    'The engine of a game that runs or is paused, to be replaced; both are locked. GX404 game_not_found, GX409 game_not_running, invalid_transition.';

CREATE FUNCTION backend.runtime_logs_json(p_logs backend.runtime_logs) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'game_id', p_logs.game_id,
    'requested_at', backend.ts(p_logs.requested_at),
    'taken_at', backend.ts(p_logs.taken_at),
    'generation', p_logs.generation,
    'content', p_logs.content,
    'problem', p_logs.error
);
COMMENT ON FUNCTION backend.runtime_logs_json(backend.runtime_logs) IS 'The log of an engine, for administrators.';

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
