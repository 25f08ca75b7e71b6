-- Deploy galaxy-backend:worker/lobby to pg
-- requires: backend/application_rules
-- requires: backend/invite_rules

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION worker.enrollments_close(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_given_up timestamptz := backend.now() - setting_interval('enrollment_grace');
    v_game_ids uuid[];
    v_game games%ROWTYPE;
    v_count integer := 0;
BEGIN
    -- Those that somebody holds at this moment are looked at the next time.
    v_game_ids := ARRAY(
        SELECT g.game_id FROM games AS g
         WHERE g.status = 'enrollment_open' AND g.enrollment_ends_at <= backend.now()
           AND (g.enrollment_ends_at <= v_given_up OR game_member_count(g.game_id) >= g.min_players)
         ORDER BY g.game_id
         LIMIT p_limit
           FOR NO KEY UPDATE OF g SKIP LOCKED);
    -- Names after games, in their order: cancelled games let go of them.
    PERFORM race_name_lock(n.race_name_canonical)
       FROM (SELECT DISTINCT m.race_name_canonical FROM memberships AS m
              WHERE m.game_id = ANY (v_game_ids) AND m.status = 'active' ORDER BY 1) AS n;
    FOR v_game IN SELECT * FROM games AS g WHERE g.game_id = ANY (v_game_ids) ORDER BY g.game_id LOOP
        -- Held now, and counted again: seats may have changed while it was waited for.
        IF game_member_count(v_game.game_id) >= v_game.min_players THEN
            PERFORM game_transition(v_game, 'ready-to-start', 'sweeper', NULL);
        ELSIF v_game.enrollment_ends_at <= v_given_up THEN
            PERFORM game_transition(v_game, 'cancel', 'sweeper', NULL, 'not_enough_members');
        END IF;
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.enrollments_close(integer) IS
    'Closes enrolment that has ended, at most so many: with enough members the game is ready to start; without, it is cancelled when the time to extend it is over. Returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.invites_expire(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    UPDATE invites SET status = 'expired'
     WHERE invite_id = ANY (ARRAY(SELECT i.invite_id FROM invites AS i
                          WHERE i.status = 'created' AND i.expires_at <= backend.now()
                          ORDER BY i.invite_id
                          LIMIT p_limit
                            FOR NO KEY UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.invites_expire(integer) IS
    'Writes down that invites are over, at most so many; they are without it. Returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.race_names_expire(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN backend.race_names_expire(p_limit);
END;
$$;
COMMENT ON FUNCTION worker.race_names_expire(integer) IS
    'Ends the time of earned race names that nobody registered, at most so many, and tells their holders. Returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.invite_attempts_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM invite_attempts
     WHERE user_id = ANY (ARRAY(SELECT t.user_id FROM invite_attempts AS t
                        WHERE t.expires_at <= backend.now() ORDER BY t.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.invite_attempts_purge(integer) IS
    'Deletes counts of invites that were not there which have expired, at most so many; returns how many. Raises nothing of its own.';

COMMIT;
