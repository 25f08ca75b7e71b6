-- Deploy galaxy-backend:backend/application_rules to pg
-- requires: backend/game_rules

-- Why: a seat in a public game is asked for, and given or not by those who run it. The race name is looked at when it is asked
-- for, and is the person's from the approval on.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.application_json(p_application backend.applications) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'application_id', p_application.application_id,
    'game_id', p_application.game_id,
    'applicant_user_id', p_application.applicant_user_id,
    'race_name', p_application.race_name,
    'status', p_application.status,
    'created_at', backend.ts(p_application.created_at),
    'decided_at', backend.ts(p_application.decided_at)
);
COMMENT ON FUNCTION backend.application_json(backend.applications) IS 'The application object of the contract.';

CREATE FUNCTION backend.application_refusal(
    p_game backend.games, p_application backend.applications, p_action text, p_actor_type text, p_actor_id text
) RETURNS backend.reason
LANGUAGE sql STABLE SECURITY INVOKER
RETURN backend.edge_refusal(
    'application', p_action, p_application.status,
    CASE
        WHEN p_actor_type <> 'user' THEN p_actor_type
        WHEN p_application.applicant_user_id::text = p_actor_id THEN 'applicant'
        WHEN p_game.owner_user_id::text = p_actor_id THEN 'owner'
    END,
    p_game.owner_user_id);
COMMENT ON FUNCTION backend.application_refusal(backend.games, backend.applications, text, text, text) IS
    'Why somebody may not approve, reject or withdraw an application now; null when they may. Whether there is a seat is found when it is taken.';

CREATE FUNCTION backend.application_insert(p_game backend.games, p_user_id uuid, p_race_name text) RETURNS backend.applications
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_application applications%ROWTYPE;
    v_membership_status text;
    v_limit integer := account_limit(p_user_id, 'max_pending_applications');
    v_name text;
BEGIN
    PERFORM sanction_refuse(p_user_id, 'game_join_block');
    SELECT m.status INTO v_membership_status FROM memberships AS m WHERE m.game_id = p_game.game_id AND m.user_id = p_user_id;
    IF p_game.status <> 'enrollment_open' THEN
        PERFORM fail(409, 'invalid_transition', format('A game that is %s does not allow apply.', p_game.status),
                     jsonb_build_object('from', p_game.status, 'action', 'apply', 'allowed', '[]'::jsonb));
    ELSIF v_membership_status = 'active' THEN
        PERFORM fail(409, 'already_member', 'There is a seat already.');
    ELSIF EXISTS (SELECT FROM applications AS a
                   WHERE a.game_id = p_game.game_id AND a.applicant_user_id = p_user_id AND a.status = 'submitted') THEN
        PERFORM fail(409, 'already_applied', 'There is an application already.');
    ELSIF p_game.visibility <> 'public' THEN
        PERFORM fail(422, 'eligibility_denied', 'A seat in a private game is had with an invite.');
    ELSIF p_game.owner_user_id = p_user_id THEN
        PERFORM fail(422, 'eligibility_denied', 'Nobody applies to a game of their own.');
    ELSIF v_membership_status = 'blocked' THEN
        PERFORM fail(422, 'eligibility_denied', 'Somebody who was blocked in a game cannot come back to it.');
    ELSIF is_over(p_game.enrollment_ends_at) THEN
        PERFORM fail(422, 'enrollment_ended', 'Enrolment is over.');
    ELSIF (SELECT count(*) FROM applications AS a WHERE a.applicant_user_id = p_user_id AND a.status = 'submitted') >= v_limit THEN
        PERFORM fail(422, 'limit_reached', 'There are as many applications as this account may have.',
                     jsonb_build_object('limit', 'max_pending_applications', 'value', v_limit));
    END IF;
    v_name := race_name_clean(p_race_name);
    IF race_name_is_taken(p_user_id, v_name) THEN
        PERFORM fail(422, 'name_taken', 'This race name is taken.');
    END IF;
    INSERT INTO applications (game_id, applicant_user_id, race_name) VALUES (p_game.game_id, p_user_id, v_name) RETURNING * INTO v_application;
    IF p_game.owner_user_id IS NOT NULL THEN
        PERFORM notification_submit('lobby.application.submitted', v_application.application_id::text, p_game.owner_user_id,
                                    jsonb_build_object('game_id', p_game.game_id, 'application_id', v_application.application_id));
    END IF;
    RETURN v_application;
END;
$$;
COMMENT ON FUNCTION backend.application_insert(backend.games, uuid, text) IS
    'Asks for a seat; the person and then the game are locked by the caller. GX403 sanctioned, GX409 invalid_transition, already_member, already_applied, GX422 eligibility_denied, enrollment_ended, limit_reached, invalid_name, name_taken.';

CREATE FUNCTION backend.application_hold(p_game_id uuid, p_application_id uuid, p_action text, p_actor_type text, p_actor_id text)
RETURNS backend.applications
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE := game_lock(p_game_id);
    v_application applications%ROWTYPE;
BEGIN
    IF v_game.game_id IS NULL OR (p_actor_type = 'user' AND NOT game_is_visible(v_game, p_actor_id::uuid)) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    SELECT * INTO v_application FROM applications
     WHERE application_id = p_application_id AND game_id = p_game_id
       AND (p_actor_type <> 'user' OR p_actor_id::uuid IN (applicant_user_id, v_game.owner_user_id))
       FOR NO KEY UPDATE;
    IF v_application.application_id IS NULL THEN
        PERFORM fail(404, 'application_not_found', 'There is no such application.');
    END IF;
    PERFORM refuse(application_refusal(v_game, v_application, p_action, p_actor_type, p_actor_id));
    RETURN v_application;
END;
$$;
COMMENT ON FUNCTION backend.application_hold(uuid, uuid, text, text, text) IS
    'An application with which somebody may do something now; it and its game are held. GX403 forbidden, sanctioned, GX404 game_not_found, application_not_found, GX409 invalid_transition.';

CREATE FUNCTION backend.application_end(p_application backend.applications, p_status text) RETURNS backend.applications
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_application applications%ROWTYPE;
BEGIN
    UPDATE applications SET status = p_status, decided_at = backend.now()
     WHERE application_id = p_application.application_id
    RETURNING * INTO v_application;
    IF p_status IN ('approved', 'rejected') THEN
        PERFORM notification_submit('lobby.application.' || p_status, v_application.application_id::text, v_application.applicant_user_id,
                                    jsonb_build_object('game_id', v_application.game_id));
    END IF;
    RETURN v_application;
END;
$$;
COMMENT ON FUNCTION backend.application_end(backend.applications, text) IS
    'Decides an application, which is held by the caller, and tells the applicant what others have decided.';

CREATE FUNCTION backend.application_approve(p_game_id uuid, p_application_id uuid, p_actor_type text, p_actor_id text)
RETURNS backend.applications
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_application applications%ROWTYPE;
BEGIN
    -- Whoever gets a seat, before the game: their seats are counted.
    PERFORM FROM accounts AS a
      WHERE a.user_id = (SELECT o.applicant_user_id FROM applications AS o WHERE o.application_id = p_application_id)
        FOR NO KEY UPDATE;
    v_application := application_hold(p_game_id, p_application_id, 'approve', p_actor_type, p_actor_id);
    SELECT * INTO v_game FROM games WHERE game_id = p_game_id;
    IF EXISTS (SELECT FROM memberships AS m
                WHERE m.game_id = p_game_id AND m.user_id = v_application.applicant_user_id AND m.status = 'active') THEN
        PERFORM fail(409, 'already_member', 'There is a seat already.');
    ELSIF is_over(v_game.enrollment_ends_at) THEN
        PERFORM fail(422, 'enrollment_ended', 'Enrolment is over.');
    END IF;
    PERFORM seat_take(v_game, v_application.applicant_user_id, v_application.race_name);
    RETURN application_end(v_application, 'approved');
END;
$$;
COMMENT ON FUNCTION backend.application_approve(uuid, uuid, text, text) IS
    'Gives the seat that was asked for. GX422 enrollment_ended and what application_hold and seat_take refuse.';

CREATE FUNCTION backend.applications_page(p_list text, p_game_id uuid, p_user_id uuid, p_limit integer, p_before uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_items jsonb[];
    v_keys text[];
BEGIN
    SELECT array_agg(application_json(r) ORDER BY r.application_id DESC), array_agg(r.application_id::text ORDER BY r.application_id DESC)
      INTO v_items, v_keys
      FROM (SELECT a.* FROM applications AS a
             WHERE (a.game_id = p_game_id OR a.applicant_user_id = p_user_id) AND (p_before IS NULL OR a.application_id < p_before)
             ORDER BY a.application_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(p_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION backend.applications_page(text, uuid, uuid, integer, uuid) IS
    'A page of the applications to a game, or of a person (the other is null), newest first.';

CREATE VIEW backend.invariants_applications AS
SELECT 'open_application_to_a_game_that_is_closed' AS invariant, a.application_id AS object_id, g.status AS details
  FROM backend.applications AS a JOIN backend.games AS g USING (game_id)
 WHERE a.status = 'submitted' AND g.status <> 'enrollment_open'
UNION ALL
SELECT 'application_to_a_private_game', a.application_id, a.race_name
  FROM backend.applications AS a JOIN backend.games AS g USING (game_id)
 WHERE g.visibility = 'private'
UNION ALL
SELECT 'open_application_of_a_member', a.application_id, a.race_name
  FROM backend.applications AS a JOIN backend.memberships AS m ON m.game_id = a.game_id AND m.user_id = a.applicant_user_id
 WHERE a.status = 'submitted' AND m.status = 'active'
UNION ALL
SELECT 'approved_without_a_seat', a.application_id, a.race_name
  FROM backend.applications AS a
 WHERE a.status = 'approved'
   AND NOT EXISTS (SELECT FROM backend.memberships AS m WHERE m.game_id = a.game_id AND m.user_id = a.applicant_user_id);
COMMENT ON VIEW backend.invariants_applications IS 'What must never be seen in applications.';

COMMIT;
