-- Deploy galaxy-backend:api/runtimes to pg
-- requires: backend/runtime_rules
-- requires: backend/audit
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.runtime_list(p_admin text, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_before uuid := cursor_read_id('runtime_list', p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(runtime_json(r) ORDER BY r.game_id DESC), array_agg(r.game_id::text ORDER BY r.game_id DESC) INTO v_items, v_keys
      FROM (SELECT * FROM runtime_records AS o
             WHERE v_before IS NULL OR o.game_id < v_before
             ORDER BY o.game_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page('runtime_list', v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.runtime_list(text, integer, text) IS
    'The engines of all games, newest game first. GX400 invalid_cursor, GX401 unauthorized.';

CREATE FUNCTION api.runtime_get(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_runtime runtime_records%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT * INTO v_runtime FROM runtime_records WHERE game_id = p_game_id;
    IF NOT FOUND THEN
        PERFORM fail(404, 'runtime_not_found', 'This game has no engine.');
    END IF;
    RETURN (runtime_json(v_runtime) || jsonb_build_object(
        'operations', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'operation', o.operation, 'generation', o.generation, 'started_at', ts(o.started_at),
                       'finished_at', ts(o.finished_at), 'outcome', o.outcome, 'error', o.error) ORDER BY o.operation_id DESC), '[]')
              FROM (SELECT * FROM runtime_operation_log AS l WHERE l.game_id = p_game_id ORDER BY l.operation_id DESC LIMIT 50) AS o),
        'health', (
            SELECT jsonb_build_object('is_healthy', h.is_healthy, 'details', h.details, 'at', ts(h.created_at))
              FROM runtime_health_snapshots AS h WHERE h.game_id = p_game_id ORDER BY h.snapshot_id DESC LIMIT 1)))::text;
END;
$$;
COMMENT ON FUNCTION api.runtime_get(text, uuid) IS
    'The engine of a game, with what was done to it lately and how it answered last. GX401 unauthorized, GX404 runtime_not_found.';

CREATE FUNCTION api.runtime_force_next_turn(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_runtime runtime_records%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_game := game_lock(p_game_id);
    IF v_game.game_id IS NULL THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    ELSIF v_game.status <> 'running' THEN
        PERFORM fail(409, 'game_not_running', 'This game does not run.', jsonb_build_object('status', v_game.status));
    END IF;
    SELECT * INTO v_runtime FROM runtime_records WHERE game_id = p_game_id FOR NO KEY UPDATE;
    IF v_runtime.turn_requested_at IS NOT NULL AND NOT v_runtime.skip_next_turn THEN
        PERFORM fail(409, 'turn_in_progress', 'A turn that was due is being computed.');
    END IF;
    IF v_runtime.turn_requested_at IS NULL THEN
        PERFORM runtime_queue_require();
    END IF;
    -- The next scheduled one is skipped. Forced twice before it runs, it is one turn.
    UPDATE runtime_records
       SET turn_requested_at = backend.now(), skip_next_turn = true, next_attempt_at = backend.now() + interval '30 seconds'
     WHERE game_id = p_game_id AND turn_requested_at IS NULL;
    IF FOUND THEN
        PERFORM job_defer('runtime', 'turn_run', jsonb_build_object('game_id', p_game_id), 'game:' || p_game_id);
    END IF;
    PERFORM audit(p_admin, 'runtime_force_next_turn', 'game', p_game_id::text, NULL);
    RETURN game_json(v_game)::text;
END;
$$;
COMMENT ON FUNCTION api.runtime_force_next_turn(text, uuid) IS
    'Computes a turn now and skips the next scheduled one; a job does it. GX401 unauthorized, GX404 game_not_found, GX409 game_not_running, turn_in_progress, GX503 runtime_busy.';

CREATE FUNCTION api.runtime_restart(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_game := game_lock(p_game_id);
    PERFORM runtime_of_running_game(v_game);
    PERFORM runtime_queue_require();
    PERFORM runtime_restart(p_game_id, 'restart');
    PERFORM audit(p_admin, 'runtime_restart', 'game', p_game_id::text, NULL);
    RETURN game_json(v_game)::text;
END;
$$;
COMMENT ON FUNCTION api.runtime_restart(text, uuid) IS
    'Replaces a game''s engine by another over the same state; a job does it. GX401 unauthorized, GX404 game_not_found, GX409 game_not_running, invalid_transition, GX503 runtime_busy.';

CREATE FUNCTION api.runtime_patch(p_admin text, p_game_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_runtime runtime_records%ROWTYPE;
    v_version engine_versions%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_game := game_lock(p_game_id);
    v_runtime := runtime_of_running_game(v_game);
    -- Held until the engine has it: it is not disabled meanwhile.
    SELECT * INTO v_version FROM engine_versions WHERE version = p_body ->> 'version' FOR SHARE;
    IF v_version.version IS NULL THEN
        PERFORM fail(422, 'engine_version_unavailable', 'There is no such engine version.');
    ELSIF NOT v_version.enabled THEN
        PERFORM fail(422, 'engine_version_unavailable', 'This engine version is not enabled.');
    ELSIF version_series(v_version.version) <> version_series(v_runtime.engine_version) THEN
        PERFORM fail(422, 'engine_version_incompatible', 'A game that runs stays with its major and minor version.',
                     jsonb_build_object('engine_version', v_runtime.engine_version));
    END IF;
    PERFORM runtime_queue_require();
    PERFORM runtime_restart(p_game_id, 'patch', v_version.version);
    UPDATE games SET target_engine_version = v_version.version WHERE game_id = p_game_id RETURNING * INTO v_game;
    PERFORM audit(p_admin, 'runtime_patch', 'game', p_game_id::text, p_body);
    RETURN game_json(v_game)::text;
END;
$$;
COMMENT ON FUNCTION api.runtime_patch(text, uuid, jsonb) IS
    'Replaces a game''s engine by one of another version of the same major and minor, over the same state; a job does it. GX401 unauthorized, GX404 game_not_found, GX409 game_not_running, invalid_transition, GX422 engine_version_incompatible, engine_version_unavailable, GX503 runtime_busy.';

CREATE FUNCTION api.runtime_logs_take(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_logs runtime_logs%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    -- One asks at a time.
    PERFORM game_lock(p_game_id);
    IF NOT EXISTS (SELECT FROM runtime_records AS r WHERE r.game_id = p_game_id) THEN
        PERFORM fail(404, 'runtime_not_found', 'This game has no engine.');
    END IF;
    SELECT * INTO v_logs FROM runtime_logs WHERE game_id = p_game_id;
    -- Asked again before they have come, it is the same request.
    IF v_logs.game_id IS NULL OR v_logs.taken_at >= v_logs.requested_at THEN
        PERFORM runtime_queue_require();
        INSERT INTO runtime_logs (game_id) VALUES (p_game_id)
        ON CONFLICT (game_id) DO UPDATE SET requested_at = greatest(backend.now(), runtime_logs.taken_at + interval '1 microsecond')
        RETURNING * INTO v_logs;
        PERFORM job_defer('runtime', 'runtime_logs', jsonb_build_object('game_id', p_game_id));
    END IF;
    PERFORM audit(p_admin, 'runtime_logs_take', 'game', p_game_id::text, NULL);
    RETURN runtime_logs_json(v_logs)::text;
END;
$$;
COMMENT ON FUNCTION api.runtime_logs_take(text, uuid) IS
    'Asks for the tail of an engine''s log; a job fetches and stores it. GX401 unauthorized, GX404 runtime_not_found, GX503 runtime_busy.';

CREATE FUNCTION api.runtime_logs_get(p_admin text, p_game_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_logs runtime_logs%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT * INTO v_logs FROM runtime_logs WHERE game_id = p_game_id;
    IF NOT FOUND THEN
        PERFORM fail(404, 'runtime_logs_not_found', 'The log of this engine was not asked for.');
    END IF;
    RETURN runtime_logs_json(v_logs)::text;
END;
$$;
COMMENT ON FUNCTION api.runtime_logs_get(text, uuid) IS
    'The tail of an engine''s log as it was last fetched. GX401 unauthorized, GX404 runtime_logs_not_found.';

COMMIT;
