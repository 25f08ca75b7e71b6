-- Deploy galaxy-backend:backend/game_rules to pg
-- requires: backend/runtime
-- requires: backend/race_name_rules
-- requires: backend/diplomail
-- requires: backend/sessions
-- requires: backend/audit
-- requires: backend/pages

-- Why: who may do what to a game, and what follows. A guard returns the reason of a refusal, or null: the command raises it, and
-- whoever asks "what can I do here" is told the same.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TYPE backend.reason AS (status integer, code text, message text, context jsonb);
COMMENT ON TYPE backend.reason IS 'Why something is refused: the HTTP status, the code, a sentence for people, context.';

CREATE FUNCTION backend.refuse(p_reason backend.reason) RETURNS void
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    -- Not "p_reason IS NOT NULL": that is true only where every field is told, and context often is not.
    IF p_reason.code IS NOT NULL THEN
        PERFORM fail(p_reason.status, p_reason.code, p_reason.message, p_reason.context);
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.refuse(backend.reason) IS 'Raises the reason that a guard gave; null is none.';

CREATE FUNCTION backend.account_limit(p_user_id uuid, p_code text) RETURNS integer
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_value integer := (SELECT l.value FROM limit_active AS l
                         WHERE l.user_id = p_user_id AND l.code = p_code AND NOT is_over(l.expires_at));
BEGIN
    IF v_value IS NOT NULL THEN
        RETURN v_value;
    END IF;
    RETURN (SELECT (to_jsonb(t) ->> p_code)::integer
              FROM entitlement_in_force(p_user_id) AS e JOIN entitlement_tiers AS t ON t.tier = e.tier);
END;
$$;
COMMENT ON FUNCTION backend.account_limit(uuid, text) IS 'A number of a person''s tier, or their own instead of it.';

CREATE FUNCTION backend.account_lock(p_user_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM accounts WHERE user_id = p_user_id FOR NO KEY UPDATE;
    -- Whoever was waited for may have closed the account.
    PERFORM account_require(p_user_id);
END;
$$;
COMMENT ON FUNCTION backend.account_lock(uuid) IS
    'Whoever counts against a person''s limits, or changes what is theirs, holds their row, before any game''s. GX404 account_not_found, GX403 account_deleted, account_blocked, sanctioned.';

CREATE FUNCTION backend.sanction_refuse(p_user_id uuid, p_code text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    IF is_sanctioned(p_user_id, p_code) THEN
        PERFORM fail(403, 'sanctioned', 'This is not allowed to this account at present.', jsonb_build_object('sanction', p_code));
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.sanction_refuse(uuid, text) IS 'Refuses somebody under a sanction. GX403 sanctioned.';

CREATE FUNCTION backend.game_member_count(p_game_id uuid) RETURNS bigint
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (SELECT count(*) FROM backend.memberships AS m WHERE m.game_id = p_game_id AND m.status = 'active');
COMMENT ON FUNCTION backend.game_member_count(uuid) IS 'How many seats are taken.';

CREATE FUNCTION backend.game_json(p_game backend.games) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (
    SELECT jsonb_build_object(
        'game_id', p_game.game_id,
        'game_name', p_game.game_name,
        'description', p_game.description,
        'visibility', p_game.visibility,
        'status', p_game.status,
        'status_reason', p_game.status_reason,
        'owner_user_id', p_game.owner_user_id,
        'min_players', p_game.min_players,
        'max_players', p_game.max_players,
        'member_count', backend.game_member_count(p_game.game_id),
        'enrollment_ends_at', backend.ts(p_game.enrollment_ends_at),
        'turn_schedule', p_game.turn_schedule,
        'target_engine_version', p_game.target_engine_version,
        'current_turn', r.current_turn,
        'next_turn_at', backend.ts(r.next_turn_at),
        'runtime_status', r.status,
        'created_at', backend.ts(p_game.created_at),
        'started_at', backend.ts(p_game.started_at),
        'finished_at', backend.ts(p_game.finished_at))
      FROM (SELECT) AS one LEFT JOIN backend.runtime_records AS r ON r.game_id = p_game.game_id
);
COMMENT ON FUNCTION backend.game_json(backend.games) IS 'The game object of the contract.';

CREATE FUNCTION backend.game_from_body(p_game backend.games, p_body jsonb) RETURNS backend.games
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE := p_game;
    v_problems jsonb := jsonb_build_array();
BEGIN
    v_game.description := coalesce(p_body ->> 'description', v_game.description);
    v_game.min_players := coalesce((p_body ->> 'min_players')::numeric::integer, v_game.min_players);
    v_game.max_players := coalesce((p_body ->> 'max_players')::numeric::integer, v_game.max_players);
    v_game.enrollment_ends_at := coalesce((p_body ->> 'enrollment_ends_at')::timestamptz, v_game.enrollment_ends_at);
    v_game.turn_schedule := coalesce(btrim(p_body ->> 'turn_schedule'), v_game.turn_schedule);
    v_game.target_engine_version := coalesce(p_body ->> 'target_engine_version', v_game.target_engine_version);
    IF p_body ? 'game_name' THEN
        v_game.game_name := display_name_clean(p_body ->> 'game_name');
        IF v_game.game_name IS NULL THEN
            v_problems := v_problems || '{"path": "game_name", "problem": "is too long, or has nothing to be seen"}'::jsonb;
        END IF;
    END IF;
    IF v_game.min_players > v_game.max_players THEN
        v_problems := v_problems || '{"path": "min_players", "problem": "is above max_players"}'::jsonb;
    END IF;
    IF p_body ? 'enrollment_ends_at' AND is_over(v_game.enrollment_ends_at) THEN
        v_problems := v_problems || '{"path": "enrollment_ends_at", "problem": "is not in the future"}'::jsonb;
    END IF;
    IF p_body ? 'turn_schedule' AND cron_next(v_game.turn_schedule, backend.now()) IS NULL THEN
        v_problems := v_problems || '{"path": "turn_schedule", "problem": "is not a schedule of five fields that ever comes"}'::jsonb;
    END IF;
    IF p_body ? 'target_engine_version'
       AND NOT EXISTS (SELECT FROM engine_versions AS v WHERE v.version = v_game.target_engine_version AND v.enabled)
    THEN
        v_problems := v_problems || '{"path": "target_engine_version", "problem": "is not an enabled engine version"}'::jsonb;
    END IF;
    IF v_problems <> '[]' THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.', v_problems);
    END IF;
    RETURN v_game;
END;
$$;
COMMENT ON FUNCTION backend.game_from_body(backend.games, jsonb) IS
    'A game, or null for none yet, with what the body of a request says of it. GX400 invalid_request.';

CREATE FUNCTION backend.game_insert(
    p_game backend.games, p_visibility text, p_owner_user_id uuid, p_actor_type text, p_actor_id text
) RETURNS backend.games
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_version text := coalesce(p_game.target_engine_version, engine_version_newest());
    v_game games%ROWTYPE;
BEGIN
    IF v_version IS NULL THEN
        PERFORM fail(422, 'engine_version_unavailable', 'No engine version is enabled.');
    END IF;
    INSERT INTO games (game_name, description, visibility, owner_user_id, min_players, max_players, enrollment_ends_at, turn_schedule,
                       target_engine_version)
    VALUES (p_game.game_name, coalesce(p_game.description, ''), p_visibility, p_owner_user_id, p_game.min_players, p_game.max_players,
            p_game.enrollment_ends_at, p_game.turn_schedule, v_version)
    RETURNING * INTO v_game;
    INSERT INTO game_history (game_id, action, to_status, actor_type, actor_id)
    VALUES (v_game.game_id, 'create', v_game.status, p_actor_type, p_actor_id);
    RETURN v_game;
END;
$$;
COMMENT ON FUNCTION backend.game_insert(backend.games, text, uuid, text, text) IS
    'A new game in draft, as game_from_body made it. GX422 engine_version_unavailable.';

CREATE FUNCTION backend.game_edit(p_game backend.games, p_body jsonb) RETURNS backend.games
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_editable text[] := CASE
        WHEN p_game.status = 'draft' THEN
            '{game_name,description,min_players,max_players,enrollment_ends_at,turn_schedule,target_engine_version}'::text[]
        -- Enrolment that has ended is extended, or the sweeper cancels the game.
        WHEN p_game.status = 'enrollment_open' AND is_over(p_game.enrollment_ends_at) THEN
            '{game_name,description,turn_schedule,enrollment_ends_at}'
        -- The turns begin with the schedule as it is when the engine has started.
        WHEN p_game.status IN ('enrollment_open', 'ready_to_start', 'start_failed') THEN '{game_name,description,turn_schedule}'
        ELSE '{}'
    END;
BEGIN
    IF EXISTS (SELECT FROM jsonb_object_keys(p_body) AS k (field_name) WHERE k.field_name <> ALL (v_editable)) THEN
        PERFORM fail(409, 'invalid_transition', format('A game that is %s does not allow these changes.', p_game.status),
                     jsonb_build_object('from', p_game.status, 'action', 'update', 'allowed', to_jsonb(v_editable)));
    END IF;
    v_game := game_from_body(p_game, p_body);
    UPDATE games
       SET game_name = v_game.game_name, description = v_game.description, min_players = v_game.min_players, max_players = v_game.max_players,
           enrollment_ends_at = v_game.enrollment_ends_at, turn_schedule = v_game.turn_schedule,
           target_engine_version = v_game.target_engine_version
     WHERE game_id = p_game.game_id
    RETURNING * INTO v_game;
    RETURN v_game;
END;
$$;
COMMENT ON FUNCTION backend.game_edit(backend.games, jsonb) IS
    'Changes what may be changed of a game in its state; the game is locked by the caller. GX400 invalid_request, GX409 invalid_transition.';

-- Each status by itself: the index gives the newest of it at once, however many games there are.
CREATE FUNCTION backend.games_newest(
    p_visibility text, p_status text[], p_owner_user_id uuid, p_q text, p_before uuid, p_limit integer
) RETURNS SETOF backend.games
LANGUAGE sql STABLE SECURITY INVOKER
BEGIN ATOMIC
    SELECT g.*
      FROM (SELECT n.game_id
              FROM (VALUES ('private'), ('public')) AS v (visibility)
             -- Once, not for each row.
             CROSS JOIN (SELECT CASE WHEN p_q IS NOT NULL THEN backend.text_fold(normalize(p_q, NFC)) END AS part OFFSET 0) AS q
             CROSS JOIN (SELECT DISTINCT t.to_state FROM backend.state_transitions AS t
                          WHERE t.machine = 'game' AND (p_status IS NULL OR t.to_state = ANY (p_status))) AS s (status)
             CROSS JOIN LATERAL (
                       SELECT o.game_id FROM backend.games AS o
                        WHERE o.visibility = v.visibility AND o.status = s.status
                          AND o.game_id < coalesce(p_before, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
                          AND (p_owner_user_id IS NULL OR o.owner_user_id = p_owner_user_id)
                          AND (q.part IS NULL OR strpos(o.name_search, q.part) > 0)
                        ORDER BY o.game_id DESC
                        LIMIT p_limit) AS n
             WHERE p_visibility IS NULL OR v.visibility = p_visibility
             ORDER BY n.game_id DESC
             LIMIT p_limit) AS f
      JOIN backend.games AS g USING (game_id)
     ORDER BY g.game_id DESC;
END;
COMMENT ON FUNCTION backend.games_newest(text, text[], uuid, text, uuid, integer) IS
    'The newest games before one, of a visibility, these statuses, an owner (null: any), whose names have this in them.';

CREATE FUNCTION backend.game_is_visible(p_game backend.games, p_user_id uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY INVOKER
RETURN p_game.visibility = 'public'
    OR p_game.owner_user_id = p_user_id
    OR EXISTS (SELECT FROM backend.memberships AS m
                WHERE m.game_id = p_game.game_id AND m.user_id = p_user_id AND m.status = 'active')
    OR EXISTS (SELECT FROM backend.invites AS i
                WHERE i.game_id = p_game.game_id AND i.invited_user_id = p_user_id AND i.status = 'created'
                  AND NOT backend.is_over(i.expires_at));
COMMENT ON FUNCTION backend.game_is_visible(backend.games, uuid) IS
    'Whether a person may see a game: a public one, or as owner, member or invitee.';

CREATE FUNCTION backend.game_find(p_game_id uuid, p_user_id uuid) RETURNS backend.games
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
BEGIN
    SELECT * INTO v_game FROM games WHERE game_id = p_game_id;
    IF v_game.game_id IS NULL OR NOT game_is_visible(v_game, p_user_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    RETURN v_game;
END;
$$;
COMMENT ON FUNCTION backend.game_find(uuid, uuid) IS 'A game that a person may see. GX404 game_not_found.';

CREATE FUNCTION backend.game_lock(p_game_id uuid) RETURNS backend.games
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
BEGIN
    SELECT * INTO v_game FROM games WHERE game_id = p_game_id FOR NO KEY UPDATE;
    RETURN v_game;
END;
$$;
COMMENT ON FUNCTION backend.game_lock(uuid) IS 'A game, held to the end of the transaction; null for none. After accounts, before everything that hangs on it.';

-- In the order of the checks: ownership, sanction, state.
CREATE FUNCTION backend.edge_refusal(p_machine text, p_action text, p_from text, p_actor text, p_owner_user_id uuid) RETURNS backend.reason
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    IF p_actor IS NULL OR NOT EXISTS (
        SELECT FROM state_transitions AS t WHERE t.machine = p_machine AND t.action = p_action AND p_actor = ANY (t.actors)
    ) THEN
        RETURN ROW(403, 'forbidden', 'Only those who run this game may do that.', NULL)::reason;
    END IF;
    IF p_actor = 'owner' AND is_sanctioned(p_owner_user_id, 'private_game_manage_block') THEN
        RETURN ROW(403, 'sanctioned', 'This is not allowed to this account at present.',
                   '{"sanction": "private_game_manage_block"}')::reason;
    END IF;
    IF NOT EXISTS (
        SELECT FROM state_transitions AS t
         WHERE t.machine = p_machine AND t.action = p_action AND t.from_state = p_from AND p_actor = ANY (t.actors)
    ) THEN
        RETURN ROW(409, 'invalid_transition', format('This %s is %s, which does not allow %s.', p_machine, p_from, p_action),
                   jsonb_build_object(
                       'from', p_from, 'action', p_action,
                       'allowed', (SELECT coalesce(jsonb_agg(DISTINCT t.action), '[]') FROM state_transitions AS t
                                    WHERE t.machine = p_machine AND t.from_state = p_from AND p_actor = ANY (t.actors)))
                  )::reason;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION backend.edge_refusal(text, text, text, text, uuid) IS
    'Why an actor (owner, admin, member, applicant, invitee, job, sweeper; null for nobody) may not take an edge of a machine from a state; null when they may. p_owner_user_id: of the game.';

CREATE FUNCTION backend.game_refusal(p_game backend.games, p_action text, p_actor_type text, p_actor_id text) RETURNS backend.reason
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_refusal reason := edge_refusal(
        'game', p_action, p_game.status,
        CASE p_actor_type WHEN 'user' THEN CASE WHEN p_game.owner_user_id::text = p_actor_id THEN 'owner' END ELSE p_actor_type END,
        p_game.owner_user_id);
BEGIN
    IF v_refusal.code IS NOT NULL THEN
        RETURN v_refusal;
    END IF;
    IF p_action IN ('open-enrollment', 'start', 'retry-start', 'force-start')
       AND NOT EXISTS (SELECT FROM engine_versions AS v WHERE v.version = p_game.target_engine_version AND v.enabled)
    THEN
        RETURN ROW(422, 'engine_version_unavailable', 'The engine version of this game is not enabled.',
                   jsonb_build_object('version', p_game.target_engine_version))::reason;
    END IF;
    IF p_action = 'open-enrollment' AND is_over(p_game.enrollment_ends_at) THEN
        RETURN ROW(422, 'enrollment_ended', 'The end of enrolment is not in the future.', NULL)::reason;
    END IF;
    -- Also at the start: seats may have become free since, with the accounts of those who had them.
    IF p_action IN ('ready-to-start', 'start', 'retry-start', 'force-start') AND game_member_count(p_game.game_id) < p_game.min_players THEN
        RETURN ROW(422, 'not_enough_members', 'Too few have a seat.',
                   jsonb_build_object('members', game_member_count(p_game.game_id), 'min_players', p_game.min_players))::reason;
    END IF;
    IF p_action = 'resume'
       AND NOT EXISTS (SELECT FROM runtime_records AS r
                        WHERE r.game_id = p_game.game_id AND r.status = 'running' AND r.wanted = 'running' AND r.unwell_since IS NULL)
    THEN
        RETURN ROW(422, 'engine_not_healthy', 'The engine of this game is not well.', NULL)::reason;
    END IF;
    IF p_action IN ('start', 'retry-start', 'force-start') AND runtime_queue_is_full() THEN
        RETURN ROW(503, 'runtime_busy', 'Too many engines wait to be started; try again.', NULL)::reason;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION backend.game_refusal(backend.games, text, text, text) IS
    'Why somebody may not do something to a game now; null when they may. p_actor_type: user, admin, job, sweeper.';

CREATE FUNCTION backend.game_actions(p_game backend.games, p_actor_type text, p_actor_id text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (
    SELECT jsonb_build_object('items', jsonb_agg(
               jsonb_build_object(
                   'action', e.action, 'to', e.to_state, 'allowed', (r).code IS NULL,
                   'reason', CASE WHEN (r).code IS NOT NULL THEN jsonb_build_object('code', (r).code, 'message', (r).message) END)
               ORDER BY e.action))
      FROM (SELECT t.action, t.to_state, backend.game_refusal(p_game, t.action, p_actor_type, p_actor_id) AS r
              FROM (SELECT DISTINCT s.action, s.to_state FROM backend.state_transitions AS s
                     WHERE s.machine = 'game' AND s.from_state IS NOT NULL) AS t) AS e
);
COMMENT ON FUNCTION backend.game_actions(backend.games, text, text) IS
    'Every action of the game machine, where it leads, and whether somebody may do it now or why not.';

CREATE FUNCTION backend.game_history_page(p_list text, p_game_id uuid, p_limit integer, p_after uuid, p_names_admins boolean) RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_items jsonb[];
    v_keys text[];
BEGIN
    SELECT array_agg(r.item ORDER BY r.id), array_agg(r.id::text ORDER BY r.id) INTO v_items, v_keys
      FROM (SELECT h.history_id AS id,
                   jsonb_build_object('action', h.action, 'from_status', h.from_status, 'to_status', h.to_status,
                                      'actor_type', h.actor_type,
                                      'actor_id', CASE WHEN p_names_admins OR h.actor_type <> 'admin' THEN h.actor_id END, 'at', ts(h.created_at)) AS item
              FROM game_history AS h
             WHERE h.game_id = p_game_id AND (p_after IS NULL OR h.history_id > p_after)
             ORDER BY h.history_id
             LIMIT p_limit + 1) AS r;
    RETURN page(p_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION backend.game_history_page(text, uuid, integer, uuid, boolean) IS
    'A page of what has happened to a game, oldest first; for players without the names of administrators.';

CREATE FUNCTION backend.game_notify(p_game_id uuid, p_kind text, p_key text, p_payload jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM notification_submit(p_kind, p_key, m.user_id, jsonb_build_object('game_id', p_game_id) || p_payload)
       FROM (SELECT a.user_id FROM memberships AS a WHERE a.game_id = p_game_id AND a.status = 'active' ORDER BY a.user_id) AS m;
END;
$$;
COMMENT ON FUNCTION backend.game_notify(uuid, text, text, jsonb) IS 'Tells every active member of a game something.';

CREATE FUNCTION backend.runtime_want(p_game backend.games) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO runtime_records AS r (game_id, engine_version, image_ref)
    SELECT p_game.game_id, v.version, v.image_ref FROM engine_versions AS v WHERE v.version = p_game.target_engine_version
    ON CONFLICT (game_id) DO UPDATE
        SET wanted = 'running', status = 'starting', generation = r.generation + 1, engine_version = excluded.engine_version,
            image_ref = excluded.image_ref, lease_until = NULL, turn_requested_at = NULL, next_attempt_at = backend.now(),
            start_operation = 'start', turn_is_outstanding = false, unwell_since = NULL, replaced_at = NULL;
    PERFORM job_defer('runtime', 'runtime_start', jsonb_build_object('game_id', p_game.game_id), 'game:' || p_game.game_id);
END;
$$;
COMMENT ON FUNCTION backend.runtime_want(backend.games) IS 'An engine is wanted for a game: the record, and the job that starts it.';

CREATE FUNCTION backend.runtime_unwant(p_game_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE runtime_records SET wanted = 'removed', turn_requested_at = NULL, next_turn_at = NULL, next_attempt_at = backend.now()
     WHERE game_id = p_game_id AND wanted <> 'removed';
    IF FOUND THEN
        -- Before anything else that waits for this game.
        PERFORM job_defer('runtime', 'runtime_remove', jsonb_build_object('game_id', p_game_id), 'game:' || p_game_id, 10);
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.runtime_unwant(uuid) IS 'A game''s engine is not wanted any more: the record, and the job that removes it.';

CREATE FUNCTION backend.game_transition(
    p_game backend.games, p_action text, p_actor_type text, p_actor_id text, p_reason text DEFAULT NULL
) RETURNS backend.games
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_to text;
    v_invited uuid;
    v_application applications%ROWTYPE;
BEGIN
    PERFORM refuse(game_refusal(p_game, p_action, p_actor_type, p_actor_id));
    SELECT t.to_state INTO STRICT v_to FROM state_transitions AS t
     WHERE t.machine = 'game' AND t.action = p_action AND t.from_state = p_game.status;
    UPDATE games
       SET status = v_to, status_reason = p_reason,
           started_at = CASE WHEN p_action = 'runtime-started' THEN backend.now() ELSE started_at END,
           finished_at = CASE WHEN v_to IN ('finished', 'cancelled') THEN backend.now() ELSE finished_at END
     WHERE game_id = p_game.game_id
    RETURNING * INTO STRICT v_game;
    INSERT INTO game_history (game_id, action, from_status, to_status, actor_type, actor_id, reason)
    VALUES (p_game.game_id, p_action, p_game.status, v_to, p_actor_type, p_actor_id, p_reason);

    IF p_game.status IN ('draft', 'enrollment_open') AND v_to <> 'enrollment_open' THEN
        -- Nobody comes in any more.
        FOR v_invited IN
            UPDATE invites SET status = 'revoked' WHERE game_id = p_game.game_id AND status = 'created' RETURNING invited_user_id
        LOOP
            IF v_invited IS NOT NULL THEN
                PERFORM notification_submit('lobby.invite.revoked', 'closed:' || p_game.game_id, v_invited,
                                            jsonb_build_object('game_id', p_game.game_id));
            END IF;
        END LOOP;
        FOR v_application IN
            UPDATE applications SET status = 'rejected', decided_at = backend.now()
             WHERE game_id = p_game.game_id AND status = 'submitted' RETURNING *
        LOOP
            PERFORM notification_submit('lobby.application.rejected', v_application.application_id::text, v_application.applicant_user_id,
                                        jsonb_build_object('game_id', p_game.game_id));
        END LOOP;
    END IF;
    IF v_to IN ('finished', 'cancelled') THEN
        -- No engine is told any more.
        UPDATE memberships SET banish_wanted_at = NULL
         WHERE game_id = p_game.game_id AND banish_wanted_at IS NOT NULL AND banished_at IS NULL;
    END IF;
    CASE
        WHEN v_to = 'starting' THEN
            PERFORM runtime_want(v_game);
        WHEN p_action = 'runtime-started' THEN
            PERFORM game_notify(v_game.game_id, 'game.started', v_game.game_id::text, '{}');
        WHEN p_action = 'resume' THEN
            -- What it was paused over is not caught up with; what was skipped stays so.
            UPDATE runtime_records SET next_turn_at = cron_next(v_game.turn_schedule, backend.now())
             WHERE game_id = v_game.game_id AND next_turn_at <= backend.now();
            -- That the engine is well is what was last seen: it is looked at now.
            PERFORM job_defer('runtime', 'runtime_check', jsonb_build_object('game_id', v_game.game_id), 'game:' || v_game.game_id);
        WHEN v_to = 'paused' THEN
            PERFORM game_notify(
                v_game.game_id, 'game.paused',
                format('paused:%s:%s', v_game.game_id, r.current_turn),
                jsonb_build_object('turn', coalesce(r.current_turn, 0), 'reason', p_reason))
               FROM runtime_records AS r WHERE r.game_id = v_game.game_id;
            PERFORM diplomail_tell(v_game.game_id, 'paused');
        WHEN v_to = 'finished' THEN
            PERFORM race_names_settle(v_game.game_id, true);
            PERFORM game_notify(v_game.game_id, 'game.finished', v_game.game_id::text, '{}');
        WHEN v_to = 'cancelled' THEN
            PERFORM race_names_settle(v_game.game_id, false);
            PERFORM runtime_unwant(v_game.game_id);
            PERFORM diplomail_tell(v_game.game_id, 'cancelled');
            -- Whoever did it knows.
            PERFORM notification_submit('lobby.membership.removed', 'cancelled:' || v_game.game_id, m.user_id,
                                        jsonb_build_object('game_id', v_game.game_id, 'reason', 'game_cancelled'))
               FROM (SELECT a.user_id FROM memberships AS a
                      WHERE a.game_id = v_game.game_id AND a.status = 'active' AND a.user_id::text IS DISTINCT FROM p_actor_id
                      ORDER BY a.user_id) AS m;
        ELSE
            NULL;
    END CASE;
    RETURN v_game;
END;
$$;
COMMENT ON FUNCTION backend.game_transition(backend.games, text, text, text, text) IS
    'Takes an edge of the game machine with all that follows from it; the game is locked by the caller. GX403 forbidden, sanctioned, GX409 invalid_transition, GX422 engine_version_unavailable, enrollment_ended, not_enough_members, engine_not_healthy, GX503 runtime_busy.';

CREATE FUNCTION backend.game_command(p_game_id uuid, p_action text, p_user_id uuid, p_reason text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE := account_require(p_user_id);
    v_game games%ROWTYPE := game_lock(p_game_id);
BEGIN
    IF v_game.game_id IS NULL OR NOT game_is_visible(v_game, v_account.user_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    RETURN game_json(game_transition(v_game, p_action, 'user', v_account.user_id::text, p_reason))::text;
END;
$$;
COMMENT ON FUNCTION backend.game_command(uuid, text, uuid, text) IS
    'A person takes an edge of the game machine; returns the game. GX404 game_not_found and what game_transition refuses.';

CREATE FUNCTION backend.game_command_by_admin(
    p_admin text, p_operation text, p_game_id uuid, p_action text, p_reason text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_from text;
BEGIN
    PERFORM administrator_require(p_admin);
    v_game := game_lock(p_game_id);
    IF v_game.game_id IS NULL THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    v_from := v_game.status;
    v_game := game_transition(v_game, p_action, 'admin', p_admin, p_reason);
    PERFORM audit(p_admin, p_operation, 'game', p_game_id::text, jsonb_build_object('from', v_from, 'to', v_game.status));
    RETURN game_json(v_game)::text;
END;
$$;
COMMENT ON FUNCTION backend.game_command_by_admin(text, text, uuid, text, text) IS
    'An administrator takes an edge of the game machine, which is written down; returns the game. GX401 unauthorized, GX404 game_not_found and what game_transition refuses.';

CREATE FUNCTION backend.membership_json(p_membership backend.memberships) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'membership_id', p_membership.membership_id,
    'game_id', p_membership.game_id,
    'user_id', p_membership.user_id,
    'race_name', p_membership.race_name,
    'status', p_membership.status,
    'joined_at', backend.ts(p_membership.joined_at),
    'ended_at', backend.ts(p_membership.ended_at),
    'planets', p_membership.planets,
    'population', p_membership.population
);
COMMENT ON FUNCTION backend.membership_json(backend.memberships) IS 'The membership object of the contract.';

CREATE FUNCTION backend.memberships_page(p_list text, p_game_id uuid, p_limit integer, p_before uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_items jsonb[];
    v_keys text[];
BEGIN
    SELECT array_agg(membership_json(r) ORDER BY r.membership_id DESC), array_agg(r.membership_id::text ORDER BY r.membership_id DESC)
      INTO v_items, v_keys
      FROM (SELECT m.* FROM memberships AS m
             WHERE m.game_id = p_game_id AND (p_before IS NULL OR m.membership_id < p_before)
             ORDER BY m.membership_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(p_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION backend.memberships_page(text, uuid, integer, uuid) IS
    'A page of who sits, or sat, in a game, newest first.';

CREATE FUNCTION backend.seat_take(p_game backend.games, p_user_id uuid, p_race_name text) RETURNS backend.memberships
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_membership memberships%ROWTYPE;
    v_name text;
    v_limit integer := account_limit(p_user_id, 'max_active_memberships');
BEGIN
    PERFORM sanction_refuse(p_user_id, 'game_join_block');
    SELECT * INTO v_membership FROM memberships WHERE game_id = p_game.game_id AND user_id = p_user_id;
    IF v_membership.status = 'active' THEN
        PERFORM fail(409, 'already_member', 'There is a seat already.');
    ELSIF v_membership.status = 'blocked' THEN
        PERFORM fail(422, 'eligibility_denied', 'Somebody who was blocked in a game cannot come back to it.');
    END IF;
    IF (SELECT count(*) FROM memberships AS m JOIN games AS g USING (game_id)
         WHERE m.user_id = p_user_id AND m.status = 'active' AND g.status NOT IN ('finished', 'cancelled')) >= v_limit THEN
        PERFORM fail(422, 'limit_reached', 'There are seats in as many games as this account may have.',
                     jsonb_build_object('limit', 'max_active_memberships', 'value', v_limit));
    END IF;
    -- The game is locked: whoever counts its seats is alone.
    IF game_member_count(p_game.game_id) >= p_game.max_players THEN
        PERFORM fail(422, 'game_full', 'Every seat is taken.');
    END IF;
    v_name := race_name_reserve(p_user_id, p_race_name);
    INSERT INTO memberships AS m (game_id, user_id, race_name)
    VALUES (p_game.game_id, p_user_id, v_name)
    ON CONFLICT ON CONSTRAINT memberships_one_per_person_and_game DO UPDATE
        SET status = 'active', ended_at = NULL, ended_by = NULL, joined_at = backend.now(), race_name = excluded.race_name
    RETURNING * INTO v_membership;
    RETURN v_membership;
END;
$$;
COMMENT ON FUNCTION backend.seat_take(backend.games, uuid, text) IS
    'Takes a seat under a race name; the person and then the game are locked by the caller. GX403 sanctioned, GX409 already_member, GX422 eligibility_denied, limit_reached, game_full, invalid_name, name_taken.';

CREATE FUNCTION backend.membership_actor(
    p_game backend.games, p_membership backend.memberships, p_action text, p_actor_type text, p_actor_id text
) RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN CASE
    WHEN p_actor_type <> 'user' THEN p_actor_type
    -- An owner who leaves does so as a member.
    WHEN p_action = 'remove' AND p_membership.user_id::text = p_actor_id THEN 'member'
    WHEN p_game.owner_user_id::text = p_actor_id THEN 'owner'
END;
COMMENT ON FUNCTION backend.membership_actor(backend.games, backend.memberships, text, text, text) IS
    'As whom somebody does something to a seat; null for nobody who could.';

CREATE FUNCTION backend.membership_refusal(
    p_game backend.games, p_membership backend.memberships, p_action text, p_actor_type text, p_actor_id text
) RETURNS backend.reason
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_refusal reason := edge_refusal(
        'membership', p_action, p_membership.status, membership_actor(p_game, p_membership, p_action, p_actor_type, p_actor_id),
        p_game.owner_user_id);
BEGIN
    IF v_refusal.code IS NULL AND p_game.status IN ('finished', 'cancelled') THEN
        RETURN ROW(409, 'invalid_transition', format('A game that is %s does not allow %s.', p_game.status, p_action),
                   jsonb_build_object('from', p_game.status, 'action', p_action, 'allowed', '[]'::jsonb))::reason;
    END IF;
    RETURN v_refusal;
END;
$$;
COMMENT ON FUNCTION backend.membership_refusal(backend.games, backend.memberships, text, text, text) IS
    'Why somebody may not remove or block a member now; null when they may.';

CREATE FUNCTION backend.membership_end(p_game backend.games, p_membership backend.memberships, p_status text, p_ended_by text)
RETURNS backend.memberships
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_membership memberships%ROWTYPE;
    v_key text := format('%s:%s', p_membership.membership_id, ts(backend.now()));
BEGIN
    UPDATE memberships
       SET status = p_status, ended_at = backend.now(), ended_by = p_ended_by,
           banish_wanted_at = CASE WHEN p_game.status IN ('starting', 'running', 'paused') THEN backend.now() END
     WHERE membership_id = p_membership.membership_id
    RETURNING * INTO v_membership;
    IF v_membership.banish_wanted_at IS NOT NULL THEN
        PERFORM job_defer('runtime', 'runtime_banish', jsonb_build_object('game_id', p_game.game_id), 'game:' || p_game.game_id);
    END IF;
    PERFORM race_name_release_unused(v_membership.user_id, v_membership.race_name_canonical);
    -- Who left knows it, and who was closed reads nothing any more.
    IF p_ended_by IN ('owner', 'admin') AND p_status = 'blocked' THEN
        PERFORM notification_submit('lobby.membership.blocked', v_key, v_membership.user_id, jsonb_build_object('game_id', p_game.game_id));
        PERFORM diplomail_tell(p_game.game_id, 'blocked', ARRAY[v_membership.user_id]);
    ELSIF p_ended_by IN ('owner', 'admin') THEN
        PERFORM notification_submit('lobby.membership.removed', v_key, v_membership.user_id,
                                    jsonb_build_object('game_id', p_game.game_id, 'reason', 'removed_by_' || p_ended_by));
        PERFORM diplomail_tell(p_game.game_id, 'removed', ARRAY[v_membership.user_id]);
    END IF;
    RETURN v_membership;
END;
$$;
COMMENT ON FUNCTION backend.membership_end(backend.games, backend.memberships, text, text) IS
    'Ends a seat, removed or blocked: it is free, its race name too where it is used nowhere else, and an engine that plays the race is to banish it. The game is locked by the caller, who asked membership_refusal.';

CREATE FUNCTION backend.seat_is_played(p_membership backend.memberships) RETURNS boolean
LANGUAGE sql STABLE SECURITY INVOKER
RETURN p_membership.status = 'active' OR coalesce(p_membership.ended_id > (
    SELECT h.history_id FROM backend.game_history AS h
     WHERE h.game_id = p_membership.game_id AND h.to_status = 'starting' ORDER BY h.history_id DESC LIMIT 1), false);
COMMENT ON FUNCTION backend.seat_is_played(backend.memberships) IS
    'Whether the engine has a race for a seat: it is taken, or was when the start was asked for.';

CREATE VIEW backend.invariants_games AS
SELECT 'more_members_than_seats' AS invariant, g.game_id AS object_id, g.game_name AS details
  FROM backend.games AS g WHERE backend.game_member_count(g.game_id) > g.max_players
UNION ALL
SELECT 'running_game_without_a_runtime', g.game_id, g.status
  FROM backend.games AS g
 WHERE g.status IN ('starting', 'running', 'paused')
   AND NOT EXISTS (SELECT FROM backend.runtime_records AS r WHERE r.game_id = g.game_id AND r.wanted = 'running')
UNION ALL
SELECT 'started_game_below_its_minimum_at_start', g.game_id, g.status
  FROM backend.games AS g
 WHERE g.status = 'running' AND (SELECT count(*) FROM backend.player_mappings AS p WHERE p.game_id = g.game_id) < 2
UNION ALL
SELECT 'turn_without_its_predecessor', t.game_id, t.turn::text
  FROM backend.game_turns AS t JOIN backend.runtime_records AS r USING (game_id)
 WHERE t.turn > r.current_turn
UNION ALL
SELECT 'game_status_and_history_disagree', g.game_id, g.status
  FROM backend.games AS g
 WHERE g.status IS DISTINCT FROM (SELECT h.to_status FROM backend.game_history AS h WHERE h.game_id = g.game_id ORDER BY h.history_id DESC LIMIT 1);
COMMENT ON VIEW backend.invariants_games IS 'What must never be seen in games and their engines.';

COMMIT;
