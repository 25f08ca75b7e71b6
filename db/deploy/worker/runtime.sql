-- Deploy galaxy-backend:worker/runtime to pg
-- requires: backend/runtime_rules

-- Why: what a job does to an engine begins with a claim and ends with a report. The claim gives a lease and a number; the report
-- names the number, and one that is not the newest counts for nothing. A worker that dies leaves a lease that runs out, and the
-- sweep sends another.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION worker.runtime_start_claim(p_game_id uuid, p_lease_seconds integer)
RETURNS TABLE (lease_number bigint, generation integer, engine_version text, image_ref text, races text[], operation text)
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
     WHERE r.game_id = p_game_id AND v_game.status IN ('starting', 'running', 'paused', 'finished') AND r.wanted = 'running' AND r.status = 'starting'
       AND (r.lease_until IS NULL OR is_over(r.lease_until))
    RETURNING * INTO v_runtime;
    IF v_runtime.game_id IS NULL THEN
        RETURN;
    END IF;
    operation := CASE WHEN v_game.status = 'starting' THEN 'start' ELSE v_runtime.start_operation END;
    PERFORM runtime_operation_begin(v_runtime, operation);
    lease_number := v_runtime.lease_number;
    generation := v_runtime.generation;
    engine_version := v_runtime.engine_version;
    image_ref := v_runtime.image_ref;
    races := ARRAY(SELECT m.race_name FROM memberships AS m WHERE m.game_id = p_game_id AND seat_is_played(m) ORDER BY m.joined_at, m.membership_id);
    RETURN NEXT;
END;
$$;
COMMENT ON FUNCTION worker.runtime_start_claim(uuid, integer) IS
    'A lease to start a game''s engine, for the first time or anew (operation: start, restart, patch), with what it is started with; no row when there is nothing to start, or another is at it. Raises nothing of its own.';

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
    IF v_runtime.game_id IS NULL OR v_runtime.status <> 'starting' OR v_runtime.wanted <> 'running' THEN
        RETURN false;
    END IF;
    IF v_game.status <> 'starting' AND p_turn < v_runtime.current_turn THEN
        RETURN worker.runtime_start_failed(
            p_game_id, p_lease_number, 'container_start_failed', format('the engine is in turn %s, ours is %s', p_turn, v_runtime.current_turn));
    END IF;
    PERFORM runtime_health_note(p_game_id, true);
    PERFORM runtime_operation_end(p_game_id, p_lease_number, 'done', NULL);
    IF v_game.status <> 'starting' THEN
        -- Started anew. A turn that it is past ours, the next one that is asked for finds; one that was asked for is due at once.
        UPDATE runtime_records
           SET status = 'running', container_id = p_container_id, endpoint = p_endpoint, lease_until = NULL, next_attempt_at = backend.now(),
               turn_is_outstanding = false, unwell_since = NULL, started_at = backend.now(), last_observed_at = backend.now()
         WHERE game_id = p_game_id;
        RETURN true;
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
    PERFORM game_transition(v_game, 'runtime-started', 'job', p_lease_number::text);
    RETURN true;
END;
$$;
COMMENT ON FUNCTION worker.runtime_started(uuid, bigint, text, text, integer, jsonb) IS
    'The engine runs and knows its game: the game runs, or goes on. False when the lease is not the newest or the game does not start any more. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_start_failed(p_game_id uuid, p_lease_number bigint, p_kind text, p_error text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE := runtime_held(p_game_id, p_lease_number);
    v_game games%ROWTYPE;
BEGIN
    SELECT * INTO v_game FROM games WHERE game_id = p_game_id;
    IF v_runtime.game_id IS NULL OR v_runtime.status <> 'starting' OR v_runtime.wanted <> 'running' THEN
        RETURN false;
    END IF;
    PERFORM runtime_operation_end(p_game_id, p_lease_number, 'failed', concat_ws(': ', p_kind, p_error));
    PERFORM runtime_health_note(p_game_id, false, p_kind);
    IF v_game.status = 'starting' THEN
        -- Nothing of it is left running: whoever tries again starts from the beginning.
        UPDATE runtime_records SET status = 'stopped', wanted = 'stopped', lease_until = NULL WHERE game_id = p_game_id;
        PERFORM game_transition(v_game, 'runtime-failed', 'job', p_lease_number::text, p_kind);
    ELSE
        -- It stays wanted, and the reconciler tries on.
        UPDATE runtime_records
           SET status = 'engine_unreachable', container_id = NULL, endpoint = NULL, lease_until = NULL, turn_requested_at = NULL,
               skip_next_turn = false, replaced_at = coalesce(replaced_at, backend.now())
         WHERE game_id = p_game_id;
        IF v_game.status = 'running' THEN
            PERFORM game_transition(v_game, 'engine-unreachable', 'job', p_lease_number::text, 'engine_unreachable');
        END IF;
    END IF;
    PERFORM runtime_failure_tell(v_runtime, p_kind, p_error);
    RETURN true;
END;
$$;
COMMENT ON FUNCTION worker.runtime_start_failed(uuid, bigint, text, text) IS
    'The engine could not be started: the start failed, or, of one that was started anew, the game pauses; p_kind: image_pull_failed, container_start_failed, start_config_invalid. False when the lease is not the newest. Raises nothing of its own.';

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
RETURNS TABLE (
    lease_number bigint, current_turn integer, generation integer, engine_version text, image_ref text, endpoint text, is_outstanding boolean
)
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
    is_outstanding := v_runtime.turn_is_outstanding;
    -- From here on the engine may be asked, and nobody would know.
    UPDATE runtime_records SET turn_is_outstanding = true WHERE game_id = p_game_id;
    PERFORM runtime_operation_begin(v_runtime, 'turn');
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
    'A lease to compute the turn that a game was asked for; is_outstanding: an earlier attempt may have asked the engine, and has not told what came of it. No row when none was, or another is at it. Raises nothing of its own.';

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
           skip_next_turn = false, last_observed_at = backend.now(), turn_is_outstanding = false, unwell_since = NULL, replaced_at = NULL,
           next_turn_at = CASE WHEN p_is_finished THEN NULL ELSE v_next END,
           finished_at = CASE WHEN p_is_finished THEN backend.now() END
     WHERE game_id = p_game_id;
    PERFORM runtime_operation_end(p_game_id, p_lease_number, 'done', NULL);
    PERFORM runtime_health_note(p_game_id, true);
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

CREATE FUNCTION worker.turn_failed(
    p_game_id uuid, p_lease_number bigint, p_kind text, p_error text, p_keeps_lease boolean, p_is_outstanding boolean DEFAULT false
) RETURNS text
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
       SET status = p_kind, lease_until = CASE WHEN p_keeps_lease THEN lease_until END, turn_requested_at = NULL, skip_next_turn = false,
           turn_is_outstanding = p_keeps_lease OR p_is_outstanding
     WHERE game_id = p_game_id;
    PERFORM runtime_operation_end(p_game_id, p_lease_number, 'failed', p_error);
    PERFORM runtime_health_note(p_game_id, false, p_kind);
    IF v_game.status = 'running' THEN
        PERFORM game_transition(v_game, replace(p_kind, '_', '-'), 'job', p_lease_number::text, p_kind);
    END IF;
    PERFORM notification_submit(
        'game.generation.failed', format('%s:%s', p_game_id, p_lease_number), NULL,
        jsonb_build_object('game_id', p_game_id, 'turn', v_runtime.current_turn::bigint + 1, 'reason', p_kind));
    RETURN 'paused';
END;
$$;
COMMENT ON FUNCTION worker.turn_failed(uuid, bigint, text, text, boolean, boolean) IS
    'A turn could not be computed: the game pauses. p_kind: engine_unreachable, generation_failed. p_keeps_lease: the engine may still be at it, and nobody is to ask it before the lease is over. p_is_outstanding: it may have been asked, and what it has done is not known. superseded when the lease is not the newest. Raises nothing of its own.';

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
         ORDER BY r.next_attempt_at
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
    PERFORM runtime_operation_begin(v_runtime, 'remove');
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
    PERFORM runtime_operation_begin(v_runtime, 'banish');
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

CREATE FUNCTION worker.runtimes_list(p_game_id uuid) RETURNS TABLE (
    game_id uuid, wanted text, status text, generation integer, engine_version text, image_ref text, container_id text, endpoint text,
    is_leased boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT r.game_id, r.wanted, r.status, r.generation, r.engine_version, r.image_ref, r.container_id, r.endpoint,
           r.lease_until IS NOT NULL AND NOT is_over(r.lease_until)
      FROM runtime_records AS r WHERE r.status <> 'removed' AND (p_game_id IS NULL OR r.game_id = p_game_id) ORDER BY r.game_id;
END;
$$;
COMMENT ON FUNCTION worker.runtimes_list(uuid) IS 'Every engine that is recorded, or a game''s, for the reconciler. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_is_wanted(p_game_id uuid, p_generation integer) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM runtime_records AS r WHERE r.game_id = p_game_id AND (p_generation IS NULL OR r.generation = p_generation) AND r.wanted = 'running');
END;
$$;
COMMENT ON FUNCTION worker.runtime_is_wanted(uuid, integer) IS 'Whether this generation of a game''s engine is to run; null for any. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_moved(p_game_id uuid, p_lease_number bigint, p_container_id text, p_endpoint text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE := runtime_held(p_game_id, p_lease_number);
BEGIN
    IF v_runtime.game_id IS NULL OR v_runtime.wanted <> 'running' THEN
        RETURN false;
    END IF;
    UPDATE runtime_records
       SET container_id = p_container_id, endpoint = p_endpoint, started_at = backend.now(), last_observed_at = backend.now()
     WHERE game_id = p_game_id;
    PERFORM runtime_operation_done(v_runtime, 'start');
    RETURN true;
END;
$$;
COMMENT ON FUNCTION worker.runtime_moved(uuid, bigint, text, text) IS
    'Whoever has the lease has started the engine again over its state, and reaches it there now. False when the lease is not the newest. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_observed(p_game_id uuid, p_generation integer, p_container_id text, p_endpoint text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM game_lock(p_game_id);
    -- It was seen well. Whoever has a lease says for themself how it is.
    UPDATE runtime_records AS r
       SET container_id = p_container_id, endpoint = p_endpoint, last_observed_at = backend.now(), unwell_since = NULL, replaced_at = NULL,
           status = CASE WHEN r.status IN ('engine_unreachable', 'generation_failed', 'stopped')
                           OR (r.status = 'generating' AND is_over(r.lease_until)) THEN 'running' ELSE r.status END
     WHERE r.game_id = p_game_id AND r.generation = p_generation AND r.wanted = 'running' AND r.status <> 'starting'
       AND (r.lease_until IS NULL OR is_over(r.lease_until));
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM runtime_health_note(p_game_id, true);
    RETURN true;
END;
$$;
COMMENT ON FUNCTION worker.runtime_observed(uuid, integer, text, text) IS
    'The engine of a generation answers, there. False when it is not the one that is wanted, or somebody works on it. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_unwell(p_game_id uuid, p_generation integer, p_kind text, p_error text, p_patience_seconds double precision) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE := game_lock(p_game_id);
    v_runtime runtime_records%ROWTYPE;
BEGIN
    SELECT * INTO v_runtime FROM runtime_records AS r
     WHERE r.game_id = p_game_id AND r.generation = p_generation AND r.wanted = 'running' AND r.status <> 'starting'
       -- Whoever has a lease says for themself how it is.
       AND (r.lease_until IS NULL OR is_over(r.lease_until))
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'superseded';
    END IF;
    PERFORM runtime_health_note(p_game_id, false, coalesce(p_error, p_kind));
    IF p_kind = 'does_not_answer' THEN
        -- Once may be chance. Twice, it is replaced; if that does not help, the game pauses, and it is replaced again each hour.
        IF v_runtime.unwell_since IS NULL OR NOT is_over(v_runtime.unwell_since + make_interval(secs => p_patience_seconds)) THEN
            UPDATE runtime_records SET unwell_since = coalesce(unwell_since, backend.now()) WHERE game_id = p_game_id;
            RETURN 'noted';
        ELSIF v_runtime.replaced_at IS NULL OR is_over(v_runtime.replaced_at + interval '1 hour') THEN
            UPDATE runtime_records SET replaced_at = backend.now(), unwell_since = NULL WHERE game_id = p_game_id;
            PERFORM runtime_restart(p_game_id, 'restart');
            RETURN 'replaced';
        END IF;
    END IF;
    UPDATE runtime_records
       SET status = CASE WHEN p_kind = 'is_gone' THEN 'stopped' WHEN status IN ('running', 'generating') THEN 'engine_unreachable' ELSE status END,
           -- What cannot be started is taken away: where it was may be another's place soon.
           container_id = CASE p_kind WHEN 'does_not_answer' THEN container_id END, endpoint = CASE p_kind WHEN 'does_not_answer' THEN endpoint END,
           unwell_since = coalesce(unwell_since, backend.now()), turn_requested_at = NULL, skip_next_turn = false
     WHERE game_id = p_game_id;
    IF v_game.status = 'running' THEN
        PERFORM game_transition(
            v_game, CASE p_kind WHEN 'is_gone' THEN 'container-gone' ELSE 'engine-unreachable' END, 'job', NULL,
            CASE p_kind WHEN 'is_gone' THEN 'container_gone' ELSE 'engine_unreachable' END);
    END IF;
    IF p_kind NOT IN ('does_not_answer', 'is_gone') THEN
        PERFORM runtime_operation_done(v_runtime, 'start', concat_ws(': ', p_kind, p_error));
        PERFORM runtime_failure_tell(v_runtime, p_kind, p_error);
    END IF;
    RETURN 'paused';
END;
$$;
COMMENT ON FUNCTION worker.runtime_unwell(uuid, integer, text, text, double precision) IS
    'The engine of a generation is not as it should be. p_kind: does_not_answer (noted; replaced if that is so again after p_patience_seconds; if that has not helped, the game pauses), is_gone, or why it cannot be started, as with runtime_start_failed (the game pauses). Returns what was done; superseded where it is not the one that is wanted, or somebody works on it. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_was_started(p_game_id uuid, p_generation integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE;
BEGIN
    PERFORM game_lock(p_game_id);
    UPDATE runtime_records AS r SET started_at = backend.now(), turn_is_outstanding = false
     WHERE r.game_id = p_game_id AND r.generation = p_generation AND (r.lease_until IS NULL OR is_over(r.lease_until))
    RETURNING * INTO v_runtime;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM runtime_operation_done(v_runtime, 'start');
    RETURN true;
END;
$$;
COMMENT ON FUNCTION worker.runtime_was_started(uuid, integer) IS
    'The reconciler found that the engine had ended, and started it. False when it is not of that generation, or somebody works on it. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_lease_renew(p_game_id uuid, p_lease_number bigint, p_lease_seconds integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE runtime_records AS r
       SET lease_until = backend.now() + make_interval(secs => p_lease_seconds),
           next_attempt_at = backend.now() + make_interval(secs => p_lease_seconds)
     WHERE r.game_id = p_game_id AND r.lease_number = p_lease_number AND r.lease_until IS NOT NULL AND NOT is_over(r.lease_until);
    RETURN FOUND;
END;
$$;
COMMENT ON FUNCTION worker.runtime_lease_renew(uuid, bigint, integer) IS
    'Whoever has a lease is still at it. False when it is over, handed in, or not the newest. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_logs_defer(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game_id uuid;
    v_count integer := 0;
BEGIN
    FOR v_game_id IN
        SELECT l.game_id FROM runtime_logs AS l
         WHERE (l.taken_at IS NULL OR l.taken_at < l.requested_at) AND is_over(l.updated_at + interval '30 seconds')
         ORDER BY l.game_id
         LIMIT p_limit
           FOR NO KEY UPDATE OF l SKIP LOCKED
    LOOP
        -- It is touched, and so not sent again at once.
        UPDATE runtime_logs SET error = NULL WHERE game_id = v_game_id;
        PERFORM job_defer('runtime', 'runtime_logs', jsonb_build_object('game_id', v_game_id));
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.runtime_logs_defer(integer) IS
    'Puts logs that were asked for and have not come into the queue again, where a job was lost; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_logs_store(p_game_id uuid, p_content text, p_error text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE;
BEGIN
    PERFORM game_lock(p_game_id);
    SELECT * INTO v_runtime FROM runtime_records WHERE game_id = p_game_id;
    UPDATE runtime_logs
       SET taken_at = backend.now(), generation = v_runtime.generation, content = coalesce(p_content, content), error = left(p_error, 500)
     WHERE game_id = p_game_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM runtime_operation_done(v_runtime, 'logs', p_error);
    RETURN true;
END;
$$;
COMMENT ON FUNCTION worker.runtime_logs_store(uuid, text, text) IS
    'The tail of an engine''s log, or why there is none: then what was stored before is kept. False when nobody asked for it. Raises nothing of its own.';

CREATE FUNCTION worker.finished_engines_unwant(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game_id uuid;
    v_count integer := 0;
BEGIN
    -- The game first, as whoever else changes what is wanted does. One that is locked comes with the next sweep.
    FOR v_game_id IN
        SELECT g.game_id FROM runtime_records AS r JOIN games AS g USING (game_id)
         WHERE r.wanted = 'running' AND r.finished_at <= backend.now() - setting_interval('finished_engine_retention')
         ORDER BY r.finished_at
         LIMIT p_limit
           FOR NO KEY UPDATE OF g SKIP LOCKED
    LOOP
        PERFORM runtime_unwant(v_game_id);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.finished_engines_unwant(integer) IS
    'The engines of at most so many games that finished long ago are wanted no more, and are taken away; their state stays. Returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_health_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    -- How an engine answered last is kept for as long as there is one, however long ago that was.
    DELETE FROM runtime_health_snapshots AS h
     WHERE h.snapshot_id = ANY (ARRAY(
         SELECT o.snapshot_id FROM runtime_health_snapshots AS o
          WHERE o.created_at <= backend.now() - interval '30 days'
            AND (EXISTS (SELECT FROM runtime_health_snapshots AS n WHERE n.game_id = o.game_id AND n.snapshot_id > o.snapshot_id)
                 OR EXISTS (SELECT FROM runtime_records AS r WHERE r.game_id = o.game_id AND r.status = 'removed'))
          ORDER BY o.created_at LIMIT p_limit
            FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.runtime_health_purge(integer) IS
    'Deletes at most so many health snapshots that are 30 days old and not the last of an engine that is there; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.runtime_operations_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    -- What was done to an engine last is kept for as long as there is one, however long ago that was.
    DELETE FROM runtime_operation_log AS l
     WHERE l.operation_id = ANY (ARRAY(
         SELECT o.operation_id FROM runtime_operation_log AS o
          WHERE o.started_at <= backend.now() - interval '30 days'
            AND (EXISTS (SELECT FROM runtime_operation_log AS n WHERE n.game_id = o.game_id AND n.operation_id > o.operation_id)
                 OR EXISTS (SELECT FROM runtime_records AS r WHERE r.game_id = o.game_id AND r.status = 'removed'))
          ORDER BY o.started_at LIMIT p_limit
            FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.runtime_operations_purge(integer) IS
    'Deletes at most so many operations that are 30 days old and not the last of an engine that is there; returns how many. Raises nothing of its own.';

COMMIT;
