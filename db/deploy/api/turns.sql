-- Deploy galaxy-backend:api/turns to pg
-- requires: backend/runtime_rules

-- Why: what players send to the engine and read from it goes through the app, which asks here whether it may, where the engine
-- is, and as which race. Nothing that the caller sends can change the race.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.engine_access(p_user_id uuid, p_game_id uuid, p_is_command boolean) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE := account_require(p_user_id);
    v_status text;
    v_race_name text;
    v_runtime runtime_records%ROWTYPE;
BEGIN
    SELECT g.status, m.race_name INTO v_status, v_race_name
      FROM memberships AS m JOIN games AS g USING (game_id)
     WHERE m.game_id = p_game_id AND m.user_id = v_account.user_id AND m.status = 'active';
    IF NOT FOUND THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    SELECT * INTO v_runtime FROM runtime_records WHERE game_id = p_game_id;
    IF v_status <> 'running' AND (p_is_command OR v_status NOT IN ('paused', 'finished'))
       OR v_runtime.endpoint IS NULL OR v_runtime.status IN ('starting', 'stopped', 'removed')
    THEN
        PERFORM fail(409, 'game_not_running', 'This game does not run.', jsonb_build_object('status', v_status));
    END IF;
    RETURN json_build_object('endpoint', v_runtime.endpoint, 'race_name', v_race_name, 'current_turn', v_runtime.current_turn)::text;
END;
$$;
COMMENT ON FUNCTION api.engine_access(uuid, uuid, boolean) IS
    'Where the caller''s engine is and as which race they speak to it; commands only while the game runs. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, game_not_found, GX409 game_not_running.';

COMMIT;
