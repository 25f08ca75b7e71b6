-- Deploy galaxy-backend:worker/runtime to pg
-- requires: backend/runtime_rules

-- Why: what a job does to an engine begins with a claim and ends with a report. The claim gives a lease and a number; the report
-- names the number, and one that is not the newest counts for nothing. A worker that dies leaves a lease that runs out, and the
-- sweep sends another.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION worker.runtime_start_claim(p_game_id uuid, p_lease_seconds integer)
RETURNS TABLE (lease_number bigint, generation integer, engine_version text, image_ref text, races text[])
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE := game_lock(p_game_id);
    v_runtime runtime_records%ROWTYPE;
BEGIN
    UPDATE runtime_records AS r
       SET lease_number = r.lease_number + 1, lease_until = backend.now() + make_interval(secs => p_lease_seconds),
           next_attempt_at = backend.now() + make_interval(secs => p_lease_seconds)
     WHERE r.game_id = p_game_id AND v_game.status = 'starting' AND r.wanted = 'running' AND r.status = 'starting'
       AND (r.lease_until IS NULL OR is_over(r.lease_until))
    RETURNING * INTO v_runtime;
    IF v_runtime.game_id IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO runtime_operation_log (game_id, operation, generation, lease_number)
    VALUES (p_game_id, 'start', v_runtime.generation, v_runtime.lease_number);
    lease_number := v_runtime.lease_number;
    generation := v_runtime.generation;
    engine_version := v_runtime.engine_version;
    image_ref := v_runtime.image_ref;
    races := ARRAY(SELECT m.race_name FROM memberships AS m WHERE m.game_id = p_game_id AND seat_is_played(m) ORDER BY m.joined_at, m.membership_id);
    RETURN NEXT;
END;
$$;
COMMENT ON FUNCTION worker.runtime_start_claim(uuid, integer) IS
    'A lease to start a game''s engine, with what it is started with; no row when there is nothing to start, or another is at it. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_started(
    p_game_id uuid, p_lease_number bigint, p_container_id text, p_endpoint text, p_turn integer, p_players jsonb
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE := runtime_held(p_game_id, p_lease_number);
    v_game games%ROWTYPE;
BEGIN
    SELECT * INTO v_game FROM games WHERE game_id = p_game_id;
    IF v_runtime.game_id IS NULL OR v_game.status <> 'starting' OR v_runtime.wanted <> 'running' THEN
        RETURN false;
    END IF;
    INSERT INTO player_mappings (game_id, user_id, player_id, race_name)
    SELECT p_game_id, m.user_id, s.id, m.race_name
      FROM jsonb_to_recordset(p_players) AS s (id text, "raceName" text)
      JOIN memberships AS m ON m.game_id = p_game_id AND m.race_name = s."raceName" AND seat_is_played(m)
    ON CONFLICT (game_id, user_id) DO UPDATE SET player_id = excluded.player_id, race_name = excluded.race_name;
    PERFORM runtime_snapshot(p_game_id, p_turn, p_players, p_lease_number);
    UPDATE runtime_records
       SET status = 'running', container_id = p_container_id, endpoint = p_endpoint, current_turn = p_turn, lease_until = NULL,
           next_turn_at = cron_next(v_game.turn_schedule, backend.now()),
           started_at = backend.now(), last_observed_at = backend.now()
     WHERE game_id = p_game_id;
    PERFORM runtime_operation_end(p_game_id, p_lease_number, 'done', NULL);
    PERFORM game_transition(v_game, 'runtime-started', 'job', p_lease_number::text);
    RETURN true;
END;
$$;
COMMENT ON FUNCTION worker.runtime_started(uuid, bigint, text, text, integer, jsonb) IS
    'The engine runs and knows the races: the game runs. False when the lease is not the newest or the game does not start any more. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_start_failed(p_game_id uuid, p_lease_number bigint, p_kind text, p_error text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE := runtime_held(p_game_id, p_lease_number);
    v_game games%ROWTYPE;
    v_payload jsonb;
BEGIN
    SELECT * INTO v_game FROM games WHERE game_id = p_game_id;
    IF v_runtime.game_id IS NULL OR v_game.status <> 'starting' THEN
        RETURN false;
    END IF;
    -- Nothing of it is left running: whoever tries again starts from the beginning.
    UPDATE runtime_records SET status = 'stopped', wanted = 'stopped', lease_until = NULL WHERE game_id = p_game_id;
    PERFORM runtime_operation_end(p_game_id, p_lease_number, 'failed', concat_ws(': ', p_kind, p_error));
    PERFORM game_transition(v_game, 'runtime-failed', 'job', p_lease_number::text, p_kind);
    v_payload := jsonb_build_object('game_id', p_game_id) || CASE p_kind
        WHEN 'image_pull_failed' THEN jsonb_build_object('image_ref', v_runtime.image_ref)
        WHEN 'start_config_invalid' THEN jsonb_build_object('reason', coalesce(nullif(left(p_error, 500), ''), 'not told'))
        ELSE '{}'
    END;
    PERFORM notification_submit('runtime.' || p_kind, p_game_id || ':' || v_runtime.generation, NULL, v_payload);
    RETURN true;
END;
$$;
COMMENT ON FUNCTION worker.runtime_start_failed(uuid, bigint, text, text) IS
    'The engine could not be started; p_kind: image_pull_failed, container_start_failed, start_config_invalid. False when the lease is not the newest. Raises nothing of its own.';

CREATE FUNCTION worker.turns_defer(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game_id uuid;
    v_count integer := 0;
BEGIN
    FOR v_game_id IN
        SELECT r.game_id FROM runtime_records AS r
         WHERE (r.turn_requested_at IS NULL AND r.status = 'running' AND r.wanted = 'running' AND r.next_turn_at <= backend.now()
                AND EXISTS (SELECT FROM games AS g WHERE g.game_id = r.game_id AND g.status = 'running'))
            -- Asked for, and lost with a job: the sweep sends another.
            OR (r.turn_requested_at IS NOT NULL AND r.next_attempt_at <= backend.now())
         ORDER BY r.game_id
         LIMIT p_limit
           FOR NO KEY UPDATE OF r SKIP LOCKED
    LOOP
        UPDATE runtime_records
           SET turn_requested_at = coalesce(turn_requested_at, backend.now()), next_attempt_at = backend.now() + interval '30 seconds'
         WHERE game_id = v_game_id;
        PERFORM job_defer('runtime', 'turn_run', jsonb_build_object('game_id', v_game_id), 'game:' || v_game_id);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.turns_defer(integer) IS
    'Puts the turns that are due into the queue, each once, at most so many; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.turn_claim(p_game_id uuid, p_lease_seconds integer)
RETURNS TABLE (lease_number bigint, current_turn integer, generation integer, engine_version text, image_ref text, endpoint text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE := game_lock(p_game_id);
    v_runtime runtime_records%ROWTYPE;
BEGIN
    IF v_game.status <> 'running' THEN
        -- Paused, or over, since it was asked for.
        UPDATE runtime_records SET turn_requested_at = NULL, skip_next_turn = false
         WHERE game_id = p_game_id AND (lease_until IS NULL OR is_over(runtime_records.lease_until));
        RETURN;
    END IF;
    UPDATE runtime_records AS r
       SET status = 'generating', lease_number = r.lease_number + 1,
           lease_until = backend.now() + make_interval(secs => p_lease_seconds),
           next_attempt_at = backend.now() + make_interval(secs => p_lease_seconds)
     WHERE r.game_id = p_game_id AND r.turn_requested_at IS NOT NULL AND r.wanted = 'running'
       AND r.status IN ('running', 'generating', 'engine_unreachable', 'generation_failed')
       AND (r.lease_until IS NULL OR is_over(r.lease_until))
    RETURNING * INTO v_runtime;
    IF v_runtime.game_id IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO runtime_operation_log (game_id, operation, generation, lease_number)
    VALUES (p_game_id, 'turn', v_runtime.generation, v_runtime.lease_number);
    lease_number := v_runtime.lease_number;
    current_turn := v_runtime.current_turn;
    generation := v_runtime.generation;
    engine_version := v_runtime.engine_version;
    image_ref := v_runtime.image_ref;
    endpoint := v_runtime.endpoint;
    RETURN NEXT;
END;
$$;
COMMENT ON FUNCTION worker.turn_claim(uuid, integer) IS
    'A lease to compute the turn that a game was asked for; no row when none was, or another is at it. Raises nothing of its own.';

CREATE FUNCTION worker.turn_report(p_game_id uuid, p_lease_number bigint, p_turn integer, p_is_finished boolean, p_players jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE := runtime_held(p_game_id, p_lease_number);
    v_game games%ROWTYPE;
    v_next timestamptz;
BEGIN
    SELECT * INTO v_game FROM games WHERE game_id = p_game_id;
    IF v_runtime.game_id IS NULL OR v_game.status NOT IN ('running', 'paused') THEN
        RETURN 'superseded';
    END IF;
    IF p_turn < v_runtime.current_turn OR (p_turn = v_runtime.current_turn AND NOT p_is_finished) THEN
        RETURN worker.turn_failed(
            p_game_id, p_lease_number, 'generation_failed', format('the engine is in turn %s, ours is %s', p_turn, v_runtime.current_turn), false);
    END IF;
    -- One that was forced stands for the one that was to come, which may have passed meanwhile.
    v_next := cron_next(
        v_game.turn_schedule, CASE WHEN v_runtime.skip_next_turn THEN greatest(backend.now(), v_runtime.next_turn_at) ELSE backend.now() END);
    IF p_turn > v_runtime.current_turn THEN
        PERFORM runtime_snapshot(p_game_id, p_turn, p_players, p_lease_number);
    END IF;
    UPDATE runtime_records
       SET status = 'running', current_turn = greatest(current_turn, p_turn), lease_until = NULL, turn_requested_at = NULL,
           skip_next_turn = false, last_observed_at = backend.now(),
           next_turn_at = CASE WHEN p_is_finished THEN NULL ELSE v_next END
     WHERE game_id = p_game_id;
    PERFORM runtime_operation_end(p_game_id, p_lease_number, 'done', NULL);
    IF p_turn > v_runtime.current_turn THEN
        PERFORM game_notify(p_game_id, 'game.turn.ready', format('turn-ready:%s:%s', p_game_id, p_turn), jsonb_build_object('turn', p_turn));
    END IF;
    IF p_is_finished THEN
        PERFORM game_transition(v_game, 'finish', 'job', p_lease_number::text);
        RETURN 'finished';
    END IF;
    RETURN 'done';
END;
$$;
COMMENT ON FUNCTION worker.turn_report(uuid, bigint, integer, boolean, jsonb) IS
    'A turn was computed, or had been: stores it, tells the members, ends the game if the engine says so. One that does not go on is a failure: paused. superseded when the lease is not the newest. Raises nothing of its own.';

CREATE FUNCTION worker.turn_failed(p_game_id uuid, p_lease_number bigint, p_kind text, p_error text, p_keeps_lease boolean) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE := runtime_held(p_game_id, p_lease_number);
    v_game games%ROWTYPE;
BEGIN
    SELECT * INTO v_game FROM games WHERE game_id = p_game_id;
    IF v_runtime.game_id IS NULL OR v_game.status NOT IN ('running', 'paused') THEN
        RETURN 'superseded';
    END IF;
    UPDATE runtime_records
       SET status = p_kind, lease_until = CASE WHEN p_keeps_lease THEN lease_until END, turn_requested_at = NULL, skip_next_turn = false
     WHERE game_id = p_game_id;
    PERFORM runtime_operation_end(p_game_id, p_lease_number, 'failed', p_error);
    IF v_game.status = 'running' THEN
        PERFORM game_transition(v_game, replace(p_kind, '_', '-'), 'job', p_lease_number::text, p_kind);
    END IF;
    PERFORM notification_submit(
        'game.generation.failed', format('%s:%s', p_game_id, p_lease_number), NULL,
        jsonb_build_object('game_id', p_game_id, 'turn', v_runtime.current_turn::bigint + 1, 'reason', p_kind));
    RETURN 'paused';
END;
$$;
COMMENT ON FUNCTION worker.turn_failed(uuid, bigint, text, text, boolean) IS
    'A turn could not be computed: the game pauses. p_kind: engine_unreachable, generation_failed. p_keeps_lease: the engine may still be at it, and nobody is to ask it before the lease is over. superseded when the lease is not the newest. Raises nothing of its own.';

CREATE FUNCTION worker.runtimes_unsettled_defer(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE;
    v_count integer := 0;
BEGIN
    FOR v_runtime IN
        SELECT r.* FROM runtime_records AS r
         WHERE r.next_attempt_at <= backend.now() AND (r.lease_until IS NULL OR is_over(r.lease_until))
           AND ((r.wanted = 'running' AND r.status = 'starting') OR (r.wanted = 'removed' AND r.status <> 'removed'))
         ORDER BY r.game_id
         LIMIT p_limit
           FOR NO KEY UPDATE OF r SKIP LOCKED
    LOOP
        UPDATE runtime_records SET next_attempt_at = backend.now() + interval '30 seconds' WHERE game_id = v_runtime.game_id;
        PERFORM job_defer(
            'runtime', CASE v_runtime.wanted WHEN 'removed' THEN 'runtime_remove' ELSE 'runtime_start' END,
            jsonb_build_object('game_id', v_runtime.game_id), 'game:' || v_runtime.game_id,
            CASE v_runtime.wanted WHEN 'removed' THEN 10 ELSE 0 END);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.runtimes_unsettled_defer(integer) IS
    'Puts what is still to be started or removed into the queue again, where a job was lost; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_remove_claim(p_game_id uuid, p_lease_seconds integer) RETURNS TABLE (lease_number bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE;
BEGIN
    PERFORM game_lock(p_game_id);
    -- Whoever else has a lease works on an engine that is not wanted any more: it is taken over at once.
    UPDATE runtime_records AS r
       SET lease_number = r.lease_number + 1, lease_until = backend.now() + make_interval(secs => p_lease_seconds),
           next_attempt_at = backend.now() + make_interval(secs => p_lease_seconds)
     WHERE r.game_id = p_game_id AND r.wanted = 'removed' AND r.status <> 'removed'
    RETURNING * INTO v_runtime;
    IF v_runtime.game_id IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO runtime_operation_log (game_id, operation, generation, lease_number)
    VALUES (p_game_id, 'remove', v_runtime.generation, v_runtime.lease_number);
    lease_number := v_runtime.lease_number;
    RETURN NEXT;
END;
$$;
COMMENT ON FUNCTION worker.runtime_remove_claim(uuid, integer) IS
    'A lease to remove an engine that is not wanted; no row when there is none. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_removed(p_game_id uuid, p_lease_number bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE := runtime_held(p_game_id, p_lease_number);
BEGIN
    IF v_runtime.game_id IS NULL OR v_runtime.wanted <> 'removed' THEN
        RETURN false;
    END IF;
    UPDATE runtime_records
       SET status = 'removed', container_id = NULL, endpoint = NULL, lease_until = NULL, last_observed_at = backend.now()
     WHERE game_id = p_game_id;
    PERFORM runtime_operation_end(p_game_id, p_lease_number, 'done', NULL);
    RETURN true;
END;
$$;
COMMENT ON FUNCTION worker.runtime_removed(uuid, bigint) IS
    'The engine is gone, as it was wanted. False when the lease is not the newest. Raises nothing of its own.';

CREATE FUNCTION worker.banish_claim(p_game_id uuid, p_lease_seconds integer)
RETURNS TABLE (lease_number bigint, generation integer, engine_version text, image_ref text, endpoint text, races text[])
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE := game_lock(p_game_id);
    v_runtime runtime_records%ROWTYPE;
BEGIN
    races := ARRAY(SELECT m.race_name FROM memberships AS m
                    WHERE m.game_id = p_game_id AND m.banish_wanted_at IS NOT NULL AND m.banished_at IS NULL
                    ORDER BY m.banish_wanted_at, m.membership_id);
    UPDATE runtime_records AS r
       SET lease_number = r.lease_number + 1, lease_until = backend.now() + make_interval(secs => p_lease_seconds),
           next_attempt_at = backend.now() + make_interval(secs => p_lease_seconds)
     WHERE r.game_id = p_game_id AND v_game.status IN ('running', 'paused') AND cardinality(races) > 0 AND r.wanted = 'running'
       AND r.status IN ('running', 'engine_unreachable', 'generation_failed')
       AND (r.lease_until IS NULL OR is_over(r.lease_until))
    RETURNING * INTO v_runtime;
    IF v_runtime.game_id IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO runtime_operation_log (game_id, operation, generation, lease_number)
    VALUES (p_game_id, 'banish', v_runtime.generation, v_runtime.lease_number);
    lease_number := v_runtime.lease_number;
    generation := v_runtime.generation;
    engine_version := v_runtime.engine_version;
    image_ref := v_runtime.image_ref;
    endpoint := v_runtime.endpoint;
    RETURN NEXT;
END;
$$;
COMMENT ON FUNCTION worker.banish_claim(uuid, integer) IS
    'A lease to tell a game''s engine which races are out of play; no row when there is none, or another is at it. Raises nothing of its own.';

CREATE FUNCTION worker.banish_report(p_game_id uuid, p_lease_number bigint, p_races text[], p_error text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE := runtime_held(p_game_id, p_lease_number);
BEGIN
    IF v_runtime.game_id IS NULL THEN
        RETURN false;
    END IF;
    UPDATE memberships SET banished_at = backend.now()
     WHERE game_id = p_game_id AND race_name = ANY (p_races) AND banish_wanted_at IS NOT NULL AND banished_at IS NULL;
    -- What is left, the sweep brings back.
    UPDATE runtime_records SET lease_until = NULL, next_attempt_at = backend.now() + interval '30 seconds' WHERE game_id = p_game_id;
    PERFORM runtime_operation_end(p_game_id, p_lease_number, CASE WHEN p_error IS NULL THEN 'done' ELSE 'failed' END, p_error);
    RETURN true;
END;
$$;
COMMENT ON FUNCTION worker.banish_report(uuid, bigint, text[], text) IS
    'The engine has taken these races out of play; p_error is what kept it from others, null for nothing. False when the lease is not the newest. Raises nothing of its own.';

CREATE FUNCTION worker.banishes_defer(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game_id uuid;
    v_count integer := 0;
BEGIN
    FOR v_game_id IN
        SELECT r.game_id FROM runtime_records AS r
         WHERE r.game_id IN (SELECT m.game_id FROM memberships AS m WHERE m.banish_wanted_at IS NOT NULL AND m.banished_at IS NULL)
           AND r.wanted = 'running' AND r.status IN ('running', 'engine_unreachable', 'generation_failed')
           AND r.next_attempt_at <= backend.now() AND (r.lease_until IS NULL OR is_over(r.lease_until))
         ORDER BY r.game_id
         LIMIT p_limit
           FOR NO KEY UPDATE OF r SKIP LOCKED
    LOOP
        UPDATE runtime_records SET next_attempt_at = backend.now() + interval '30 seconds' WHERE game_id = v_game_id;
        PERFORM job_defer('runtime', 'runtime_banish', jsonb_build_object('game_id', v_game_id), 'game:' || v_game_id);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.banishes_defer(integer) IS
    'Puts what engines are still to be told of races out of play into the queue again, where a job was lost or failed; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.runtimes_list() RETURNS TABLE (
    game_id uuid, wanted text, status text, generation integer, engine_version text, image_ref text, container_id text, endpoint text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT r.game_id, r.wanted, r.status, r.generation, r.engine_version, r.image_ref, r.container_id, r.endpoint
      FROM runtime_records AS r WHERE r.status <> 'removed' ORDER BY r.game_id;
END;
$$;
COMMENT ON FUNCTION worker.runtimes_list() IS 'Every engine that is recorded, for the reconciler. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_is_wanted(p_game_id uuid, p_generation integer) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM runtime_records AS r WHERE r.game_id = p_game_id AND (p_generation IS NULL OR r.generation = p_generation) AND r.wanted = 'running');
END;
$$;
COMMENT ON FUNCTION worker.runtime_is_wanted(uuid, integer) IS 'Whether this generation of a game''s engine is to run; null for any. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_moved(p_game_id uuid, p_generation integer, p_endpoint text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE runtime_records AS r SET endpoint = p_endpoint, last_observed_at = backend.now()
     WHERE r.game_id = p_game_id AND r.generation = p_generation AND r.wanted = 'running';
    RETURN FOUND;
END;
$$;
COMMENT ON FUNCTION worker.runtime_moved(uuid, integer, text) IS
    'The engine of a generation is reached there now. False when it is not the one that is wanted. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_observed(p_game_id uuid, p_generation integer, p_container_id text, p_endpoint text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM game_lock(p_game_id);
    -- It was seen well. Whoever has a lease says for themself how it is.
    UPDATE runtime_records AS r
       SET container_id = p_container_id, endpoint = p_endpoint, last_observed_at = backend.now(),
           status = CASE WHEN r.status IN ('engine_unreachable', 'generation_failed', 'stopped')
                           OR (r.status = 'generating' AND is_over(r.lease_until)) THEN 'running' ELSE r.status END
     WHERE r.game_id = p_game_id AND r.generation = p_generation AND r.wanted = 'running' AND r.status <> 'starting'
       AND (r.lease_until IS NULL OR is_over(r.lease_until));
    RETURN FOUND;
END;
$$;
COMMENT ON FUNCTION worker.runtime_observed(uuid, integer, text, text) IS
    'The engine of a generation answers, there. False when it is not the one that is wanted, or somebody works on it. Raises nothing of its own.';

COMMIT;
