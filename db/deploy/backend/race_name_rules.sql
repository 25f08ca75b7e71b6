-- Deploy galaxy-backend:backend/race_name_rules to pg
-- requires: backend/games
-- requires: backend/notifications

-- Why: a name is its holder's while they play under it, for a time when they have earned it, and for good when they have
-- registered it. Its uses are the holder's seats, in games that have not ended, under the same canonical form.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.tg_memberships__store_canonical() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    NEW.race_name_canonical := race_name_canonical(NEW.race_name);
    RETURN NEW;
END;
$$;
COMMENT ON FUNCTION backend.tg_memberships__store_canonical() IS 'Before insert or update of a seat: stores the canonical form of its race name.';
CREATE TRIGGER store_canonical BEFORE INSERT OR UPDATE OF race_name, race_name_canonical ON backend.memberships
    FOR EACH ROW EXECUTE FUNCTION backend.tg_memberships__store_canonical();

CREATE FUNCTION backend.race_name_game_ids(p_user_id uuid, p_canonical text) RETURNS uuid[]
LANGUAGE sql STABLE SECURITY INVOKER
RETURN ARRAY(
    SELECT m.game_id FROM backend.memberships AS m JOIN backend.games AS g USING (game_id)
     WHERE m.user_id = p_user_id AND m.race_name_canonical = p_canonical AND m.status = 'active'
       AND g.status NOT IN ('finished', 'cancelled')
     ORDER BY m.game_id DESC
);
COMMENT ON FUNCTION backend.race_name_game_ids(uuid, text) IS 'The games in which a person uses a name, newest first.';

CREATE FUNCTION backend.race_name_tier(p_race_name backend.race_names) RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN CASE
    WHEN p_race_name.tier <> 'pending_registration' OR NOT backend.is_over(p_race_name.expires_at) THEN p_race_name.tier
    WHEN backend.race_name_game_ids(p_race_name.user_id, p_race_name.canonical) <> '{}' THEN 'reservation'
    ELSE 'released'
END;
COMMENT ON FUNCTION backend.race_name_tier(backend.race_names) IS 'The tier of a name now, whether or not somebody has come by to write it down.';

CREATE FUNCTION backend.race_name_is_taken(p_user_id uuid, p_race_name text) RETURNS boolean
LANGUAGE sql STABLE SECURITY INVOKER
RETURN EXISTS (SELECT FROM backend.race_names AS r
                WHERE r.canonical = backend.race_name_canonical(p_race_name) AND r.user_id <> p_user_id AND backend.race_name_tier(r) <> 'released');
COMMENT ON FUNCTION backend.race_name_is_taken(uuid, text) IS 'Whether somebody else holds a name now.';

CREATE FUNCTION backend.race_name_is_expired(p_race_name backend.race_names) RETURNS boolean
LANGUAGE sql STABLE SECURITY INVOKER
RETURN p_race_name.tier IN ('pending_registration', 'released') AND p_race_name.expires_at <= coalesce(p_race_name.released_at, backend.now());
COMMENT ON FUNCTION backend.race_name_is_expired(backend.race_names) IS 'Whether a name was earned, and not registered in time.';

CREATE FUNCTION backend.race_name_expire(p_race_name_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_name race_names%ROWTYPE;
BEGIN
    SELECT * INTO v_name FROM race_names AS r
     WHERE r.race_name_id = p_race_name_id AND r.tier = 'pending_registration' AND is_over(r.expires_at);
    IF v_name.race_name_id IS NULL THEN
        RETURN false;
    END IF;
    IF race_name_tier(v_name) = 'reservation' THEN
        UPDATE race_names SET tier = 'reservation', expires_at = NULL WHERE race_name_id = p_race_name_id;
    ELSE
        UPDATE race_names SET tier = 'released', released_at = backend.now() WHERE race_name_id = p_race_name_id;
    END IF;
    PERFORM notification_submit('lobby.race_name.expired', p_race_name_id || ':' || ts(v_name.expires_at), v_name.user_id,
                                jsonb_build_object('race_name', v_name.race_name));
    RETURN true;
END;
$$;
COMMENT ON FUNCTION backend.race_name_expire(uuid) IS
    'Ends the time of an earned name if it is over, and says so to its holder; false if there is nothing to end. The name is locked by the caller.';

CREATE FUNCTION backend.race_name_hold(p_canonical text) RETURNS backend.race_names
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_name race_names%ROWTYPE;
BEGIN
    PERFORM race_name_lock(p_canonical);
    PERFORM race_name_expire(r.race_name_id) FROM race_names AS r WHERE r.canonical = p_canonical AND r.tier = 'pending_registration';
    SELECT * INTO v_name FROM race_names AS r WHERE r.canonical = p_canonical AND r.tier <> 'released';
    RETURN v_name;
END;
$$;
COMMENT ON FUNCTION backend.race_name_hold(text) IS
    'Locks a name to the end of the transaction, and returns who holds it how now; null for nobody.';

CREATE FUNCTION backend.race_name_reserve(p_user_id uuid, p_race_name text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := race_name_clean(p_race_name);
    -- Two who want one name at once: the second waits here, and then sees the first.
    v_held race_names%ROWTYPE := race_name_hold(race_name_canonical(v_name));
BEGIN
    IF v_held.race_name_id IS NULL THEN
        INSERT INTO race_names (race_name, user_id) VALUES (v_name, p_user_id);
    ELSIF v_held.user_id <> p_user_id THEN
        PERFORM fail(422, 'name_taken', 'This race name is taken.');
    END IF;
    RETURN v_name;
END;
$$;
COMMENT ON FUNCTION backend.race_name_reserve(uuid, text) IS
    'Makes a person the holder of a name, or leaves it theirs; returns it as it is kept. GX422 invalid_name, name_taken.';

CREATE FUNCTION backend.race_name_release_unused(p_user_id uuid, p_canonical text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_held race_names%ROWTYPE := race_name_hold(p_canonical);
BEGIN
    IF v_held.user_id = p_user_id AND v_held.tier = 'reservation' AND race_name_game_ids(p_user_id, p_canonical) = '{}' THEN
        UPDATE race_names SET tier = 'released', released_at = backend.now() WHERE race_name_id = v_held.race_name_id;
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.race_name_release_unused(uuid, text) IS
    'Lets a reserved name go when its holder''s last game under it has ended; earned and registered names stay.';

CREATE FUNCTION backend.race_names_settle(p_game_id uuid, p_is_finished boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_member memberships%ROWTYPE;
    v_earned race_names%ROWTYPE;
    v_expires_at timestamptz := backend.now() + setting_interval('pending_registration_ttl');
BEGIN
    -- In the order of the names, which is the order of their locks.
    FOR v_member IN
        SELECT * FROM memberships WHERE game_id = p_game_id AND status = 'active' ORDER BY race_name_canonical
    LOOP
        IF p_is_finished AND v_member.max_planets > v_member.initial_planets AND v_member.max_population > v_member.initial_population THEN
            PERFORM race_name_lock(v_member.race_name_canonical);
            -- One that was earned before and whose time is over was but in use, whether or not somebody has come by.
            UPDATE race_names AS r SET tier = 'pending_registration', expires_at = v_expires_at
             WHERE r.canonical = v_member.race_name_canonical AND r.user_id = v_member.user_id
               AND (r.tier = 'reservation' OR (r.tier = 'pending_registration' AND is_over(r.expires_at)))
            RETURNING * INTO v_earned;
            IF FOUND THEN
                PERFORM notification_submit('lobby.race_name.pending', p_game_id || ':' || v_earned.race_name_id, v_member.user_id,
                                            jsonb_build_object('race_name', v_earned.race_name, 'expires_at', ts(v_expires_at)));
            END IF;
        ELSE
            PERFORM race_name_release_unused(v_member.user_id, v_member.race_name_canonical);
        END IF;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION backend.race_names_settle(uuid, boolean) IS
    'At a game''s end: names whose races grew in planets and population are earned, the others are let go unless they are in use elsewhere.';

CREATE FUNCTION backend.race_names_expire(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_name race_names%ROWTYPE;
    v_count integer := 0;
BEGIN
    FOR v_name IN
        SELECT * FROM race_names AS r
         WHERE r.tier = 'pending_registration' AND r.expires_at <= backend.now()
         ORDER BY r.expires_at LIMIT p_limit
    LOOP
        -- Never waits, so that the order of the names does not matter here: whoever has this one sees to it.
        IF pg_try_advisory_xact_lock(hashtextextended(v_name.canonical, 11)) THEN
            v_count := v_count + race_name_expire(v_name.race_name_id)::integer;
        END IF;
    END LOOP;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION backend.race_names_expire(integer) IS
    'Ends the time of at most so many earned names that nobody registered; returns how many. Any number may do it at once.';

CREATE FUNCTION backend.race_name_json(p_race_name backend.race_names) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'race_name', p_race_name.race_name,
    'status', backend.race_name_tier(p_race_name),
    'game_ids', to_jsonb(backend.race_name_game_ids(p_race_name.user_id, p_race_name.canonical)),
    'expires_at', CASE backend.race_name_tier(p_race_name) WHEN 'pending_registration' THEN backend.ts(p_race_name.expires_at) END,
    'registered_at', backend.ts(p_race_name.registered_at)
);
COMMENT ON FUNCTION backend.race_name_json(backend.race_names) IS 'The race name object of the contract, for its holder.';

CREATE VIEW backend.invariants_race_names AS
SELECT 'reservation_without_a_game' AS invariant, r.race_name_id AS object_id, r.race_name AS details
  FROM backend.race_names AS r
 WHERE r.tier = 'reservation' AND backend.race_name_game_ids(r.user_id, r.canonical) = '{}'
UNION ALL
SELECT 'seat_under_a_name_that_is_not_held', m.membership_id, m.race_name
  FROM backend.memberships AS m JOIN backend.games AS g USING (game_id)
 WHERE m.status = 'active' AND g.status NOT IN ('finished', 'cancelled')
   AND NOT EXISTS (SELECT FROM backend.race_names AS r
                    WHERE r.canonical = m.race_name_canonical AND r.user_id = m.user_id AND r.tier <> 'released')
UNION ALL
SELECT 'name_by_other_data', r.race_name_id, r.data_version
  FROM backend.race_names AS r
 WHERE r.tier <> 'released' AND r.data_version IS DISTINCT FROM (SELECT u.data_version FROM backend.unicode_version AS u);
COMMENT ON VIEW backend.invariants_race_names IS 'What must never be seen in race names.';

CREATE VIEW backend.race_name_problems AS
WITH live AS MATERIALIZED (
    SELECT r.race_name_id, r.race_name, r.user_id, backend.race_name_canonical(r.race_name) AS canonical
      FROM backend.race_names AS r WHERE r.tier <> 'released'
), seat AS MATERIALIZED (
    SELECT m.race_name, m.user_id, backend.race_name_canonical(m.race_name) AS canonical
      FROM backend.memberships AS m JOIN backend.games AS g USING (game_id)
     WHERE m.status = 'active' AND g.status NOT IN ('finished', 'cancelled')
)
SELECT 'collision' AS problem, a.race_name, a.user_id, b.race_name AS other_race_name, b.user_id AS other_user_id
  FROM live AS a JOIN live AS b ON b.canonical = a.canonical AND b.race_name_id > a.race_name_id
UNION ALL
SELECT coalesce(CASE WHEN l.canonical = '' THEN 'empty' END, backend.race_name_problem(l.race_name)), l.race_name, l.user_id, NULL, NULL
  FROM live AS l WHERE backend.race_name_problem(l.race_name) IS NOT NULL
UNION ALL
SELECT 'seat_under_another_name', s.race_name, s.user_id, NULL, NULL
  FROM seat AS s WHERE NOT EXISTS (SELECT FROM live AS l WHERE l.user_id = s.user_id AND l.canonical = s.canonical);
COMMENT ON VIEW backend.race_name_problems IS
    'What would be wrong with the names that are held if the canonical forms were made anew: two that became one (collision), nothing left (empty), no longer allowed (invalid_name, name_reserved), a seat that would not be under its holder''s name any more.';

CREATE FUNCTION backend.race_names_recompute() RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_version text := (SELECT u.data_version FROM unicode_version AS u);
    v_count integer;
    v_total integer := 0;
BEGIN
    -- Nobody takes a name by the old data meanwhile.
    LOCK TABLE race_names, memberships IN SHARE ROW EXCLUSIVE MODE;
    UPDATE reserved_names SET race_name = race_name WHERE data_version <> v_version;
    LOOP
        -- A form can be another name's until that has its own; two names that want one are refused by race_names_one_holder.
        UPDATE race_names AS r SET race_name = r.race_name
         WHERE r.tier <> 'released' AND r.data_version <> v_version
           AND NOT EXISTS (SELECT FROM race_names AS o
                            WHERE o.canonical = race_name_canonical(r.race_name) AND o.tier <> 'released' AND o.race_name_id <> r.race_name_id);
        GET DIAGNOSTICS v_count = ROW_COUNT;
        EXIT WHEN v_count = 0;
        v_total := v_total + v_count;
    END LOOP;
    UPDATE memberships AS m SET race_name = m.race_name
      FROM games AS g
     WHERE g.game_id = m.game_id AND m.status = 'active' AND g.status NOT IN ('finished', 'cancelled')
       AND m.race_name_canonical <> race_name_canonical(m.race_name);
    IF EXISTS (SELECT FROM invariants_race_names) THEN
        RAISE EXCEPTION 'race names collide by these data' USING
            ERRCODE = 'unique_violation', HINT = 'Look at backend.race_name_problems before the data are loaded.';
    END IF;
    RETURN v_total;
END;
$$;
COMMENT ON FUNCTION backend.race_names_recompute() IS
    'Makes the canonical forms of what is held, in use and reserved anew, after other data were loaded; returns how many names it made anew. 23505 when two would become one, 23514 when one would become nothing: look at race_name_problems before.';

COMMIT;
