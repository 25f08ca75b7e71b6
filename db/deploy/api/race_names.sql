-- Deploy galaxy-backend:api/race_names to pg
-- requires: backend/game_rules
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.race_name_register(p_user_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_canonical text;
    v_name race_names%ROWTYPE;
    v_limit integer;
BEGIN
    PERFORM account_require(p_user_id);
    -- The person first: of two names that they register at once, the second is counted after the first.
    PERFORM account_lock(p_user_id);
    v_canonical := race_name_canonical(p_body ->> 'race_name');
    PERFORM race_name_lock(v_canonical);
    -- The one that is held, else the last one that was.
    SELECT * INTO v_name FROM race_names AS r
     WHERE r.user_id = p_user_id AND r.canonical = v_canonical
     ORDER BY r.tier <> 'released' DESC, r.race_name_id DESC LIMIT 1;
    IF race_name_is_expired(v_name) THEN
        PERFORM fail(422, 'race_name_pending_window_expired', 'The time in which this race name could be registered is over.',
                     jsonb_build_object('expires_at', ts(v_name.expires_at)));
    ELSIF v_name.race_name_id IS NULL OR v_name.tier = 'released' THEN
        PERFORM fail(404, 'race_name_not_found', 'The caller holds no such race name.');
    ELSIF v_name.tier <> 'pending_registration' THEN
        PERFORM fail(409, 'invalid_transition', format('A race name that is %s does not allow register.', v_name.tier),
                     jsonb_build_object('from', v_name.tier, 'action', 'register', 'allowed', '[]'::jsonb));
    END IF;
    v_limit := account_limit(p_user_id, 'max_registered_race_names');
    IF (SELECT count(*) FROM race_names AS r WHERE r.user_id = p_user_id AND r.tier = 'registered') >= v_limit THEN
        PERFORM fail(422, 'race_name_registration_quota_exceeded', 'This account has registered as many race names as it may.',
                     jsonb_build_object('limit', 'max_registered_race_names', 'value', v_limit));
    END IF;
    UPDATE race_names SET tier = 'registered', expires_at = NULL, registered_at = backend.now()
     WHERE race_name_id = v_name.race_name_id
    RETURNING * INTO STRICT v_name;
    PERFORM notification_submit('lobby.race_name.registered', v_name.race_name_id::text, p_user_id,
                                jsonb_build_object('race_name', v_name.race_name));
    RETURN race_name_json(v_name)::text;
END;
$$;
COMMENT ON FUNCTION api.race_name_register(uuid, jsonb) IS
    'Makes a name that the caller has earned theirs for good. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, race_name_not_found, GX409 invalid_transition, GX422 race_name_pending_window_expired, race_name_registration_quota_exceeded.';

CREATE FUNCTION api.race_name_check(p_user_id uuid, p_name text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE := account_require(p_user_id);
    v_name text := race_name_tidy(p_name);
    v_reason text := race_name_problem(v_name);
BEGIN
    IF v_reason IS NULL AND race_name_is_taken(v_account.user_id, v_name) THEN
        v_reason := 'name_taken';
    END IF;
    RETURN json_build_object('race_name', v_name, 'available', v_reason IS NULL, 'reason', v_reason)::text;
END;
$$;
COMMENT ON FUNCTION api.race_name_check(uuid, text) IS
    'Whether the caller could take a name now, and if not why; never who has it. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

CREATE FUNCTION api.my_race_name_list(p_user_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'my_race_name_list:' || p_user_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_account accounts%ROWTYPE := account_require(p_user_id);
    v_items jsonb[];
    v_keys text[];
BEGIN
    SELECT array_agg(race_name_json(r) ORDER BY r.race_name_id DESC), array_agg(r.race_name_id::text ORDER BY r.race_name_id DESC)
      INTO v_items, v_keys
      FROM (SELECT h.* FROM race_names AS h
             WHERE h.user_id = v_account.user_id AND h.tier <> 'released' AND race_name_tier(h) <> 'released'
               AND (v_before IS NULL OR h.race_name_id < v_before)
             ORDER BY h.race_name_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.my_race_name_list(uuid, integer, text) IS
    'The race names that the caller holds, newest first, with the games in which they use them. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

COMMIT;
