-- Deploy galaxy-backend:api/sessions to pg
-- requires: backend/sessions
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.session_get(p_device_session_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_session device_sessions%ROWTYPE;
BEGIN
    SELECT * INTO v_session FROM device_sessions WHERE device_session_id = p_device_session_id;
    IF NOT FOUND THEN
        PERFORM fail(404, 'session_not_found', 'There is no such session.');
    END IF;
    RETURN session_json(v_session)::text;
END;
$$;
COMMENT ON FUNCTION api.session_get(uuid) IS
    'The session that the gateway checks on every client request; a revoked one says so. GX404 session_not_found.';

CREATE FUNCTION api.session_resolve(p_body jsonb, p_token_hash bytea) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_session device_sessions%ROWTYPE;
BEGIN
    -- The token was taken out of the body; what is left of it says nothing.
    SELECT * INTO v_session FROM device_sessions WHERE token_hash = p_token_hash AND p_body IS NOT NULL;
    IF NOT FOUND THEN
        PERFORM fail(404, 'session_not_found', 'There is no such session.');
    END IF;
    RETURN session_json(v_session)::text;
END;
$$;
COMMENT ON FUNCTION api.session_resolve(jsonb, bytea) IS
    'The session of a bearer token, by its hash; a revoked one says so. GX404 session_not_found.';

CREATE FUNCTION api.sessions_seen(p_ids uuid[], p_ages double precision[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_now CONSTANT timestamptz := backend.now();  -- once, not for each session
    v_count integer;
BEGIN
    WITH noted AS (
        SELECT n.device_session_id, v_now - make_interval(secs => greatest(min(n.age), 0)) AS seen_at
          FROM unnest(p_ids, p_ages) AS n (device_session_id, age)
         GROUP BY n.device_session_id
    ), due AS MATERIALIZED (
        -- In the order of the key. What is locked stays where it is; one that somebody is changing, or has changed in this very
        -- moment, is noted another time.
        SELECT s.ctid AS place, n.seen_at FROM device_sessions AS s JOIN noted AS n USING (device_session_id)
         WHERE s.status = 'active' AND (s.last_seen_at IS NULL OR s.last_seen_at <= n.seen_at - interval '1 minute')
         ORDER BY s.device_session_id
           FOR NO KEY UPDATE OF s SKIP LOCKED
    )
    UPDATE device_sessions AS s SET last_seen_at = d.seen_at FROM due AS d WHERE s.ctid = d.place;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION api.sessions_seen(uuid[], double precision[]) IS
    'Notes that active sessions were seen so many seconds ago, at most once a minute each; returns how many were. Raises nothing of its own.';

CREATE FUNCTION api.session_revoke(p_device_session_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_session device_sessions%ROWTYPE := session_revoke(p_device_session_id, coalesce(p_body ->> 'reason', 'logout'));
BEGIN
    IF v_session.device_session_id IS NULL THEN
        PERFORM fail(404, 'session_not_found', 'There is no such session.');
    END IF;
    RETURN session_json(v_session)::text;
END;
$$;
COMMENT ON FUNCTION api.session_revoke(uuid, jsonb) IS
    'Revokes a session for the gateway; again changes nothing. GX404 session_not_found.';

CREATE FUNCTION api.session_revoke_all(p_user_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM accounts AS a WHERE a.user_id = p_user_id) THEN
        PERFORM fail(404, 'account_not_found', 'There is no such account.');
    END IF;
    RETURN json_build_object('revoked', session_revoke_all(p_user_id, coalesce(p_body ->> 'reason', 'logout')))::text;
END;
$$;
COMMENT ON FUNCTION api.session_revoke_all(uuid, jsonb) IS
    'Revokes every session of a person for the gateway, with one invalidation. GX404 account_not_found.';

CREATE FUNCTION api.my_session_list(p_user_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'my_session_list:' || p_user_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_account accounts%ROWTYPE := account_require(p_user_id);
    v_items jsonb[];
    v_keys text[];
BEGIN
    SELECT array_agg(r.item ORDER BY r.id DESC), array_agg(r.id::text ORDER BY r.id DESC) INTO v_items, v_keys
      FROM (SELECT s.device_session_id AS id,
                   session_json(s)::jsonb || jsonb_build_object('last_seen_at', ts(s.last_seen_at)) AS item
              FROM device_sessions AS s
             WHERE s.user_id = v_account.user_id AND (v_before IS NULL OR s.device_session_id < v_before)
             ORDER BY s.device_session_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.my_session_list(uuid, integer, text) IS
    'The caller''s sessions, newest first. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

CREATE FUNCTION api.my_session_revoke(p_user_id uuid, p_device_session_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE := account_require(p_user_id);
BEGIN
    -- Somebody else's is not there.
    IF NOT EXISTS (SELECT FROM device_sessions AS s
                    WHERE s.device_session_id = p_device_session_id AND s.user_id = v_account.user_id) THEN
        PERFORM fail(404, 'session_not_found', 'There is no such session.');
    END IF;
    RETURN session_json(session_revoke(p_device_session_id, 'revoked_by_user'))::text;
END;
$$;
COMMENT ON FUNCTION api.my_session_revoke(uuid, uuid) IS
    'Revokes one of the caller''s own sessions; again changes nothing. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, session_not_found.';

CREATE FUNCTION api.my_session_revoke_all(p_user_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE := account_require(p_user_id);
BEGIN
    RETURN json_build_object('revoked', session_revoke_all(v_account.user_id, 'revoked_by_user'))::text;
END;
$$;
COMMENT ON FUNCTION api.my_session_revoke_all(uuid) IS
    'Revokes every session of the caller. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

COMMIT;
