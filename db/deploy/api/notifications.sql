-- Deploy galaxy-backend:api/notifications to pg
-- requires: backend/notifications
-- requires: backend/audit
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.notification_list(
    p_admin text, p_kind text, p_recipient_user_id uuid, p_idempotency_key text, p_limit integer, p_cursor text
) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'notification_list:' || jsonb_build_array(p_kind, p_recipient_user_id, p_idempotency_key)::text;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(notification_json(r) ORDER BY r.notification_id DESC), array_agg(r.notification_id::text ORDER BY r.notification_id DESC)
      INTO v_items, v_keys
      FROM (SELECT n.* FROM notifications AS n
             WHERE (v_before IS NULL OR n.notification_id < v_before)
               AND (p_kind IS NULL OR n.kind = p_kind)
               AND (p_recipient_user_id IS NULL OR n.user_id = p_recipient_user_id)
               AND (p_idempotency_key IS NULL OR n.idempotency_key = p_idempotency_key)
             ORDER BY n.notification_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.notification_list(text, text, uuid, text, integer, text) IS
    'What people and administrators were told, newest first: by kind, person and key. GX400 invalid_cursor, GX401 unauthorized.';

CREATE FUNCTION api.notification_get(p_admin text, p_notification_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_notification notifications%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT * INTO v_notification FROM notifications WHERE notification_id = p_notification_id;
    IF NOT FOUND THEN
        PERFORM fail(404, 'notification_not_found', 'There is no such notification.');
    END IF;
    RETURN notification_with_routes_json(v_notification)::text;
END;
$$;
COMMENT ON FUNCTION api.notification_get(text, uuid) IS
    'A notification and its routes. GX401 unauthorized, GX404 notification_not_found.';

CREATE FUNCTION api.notification_dead_letter_list(p_admin text, p_kind text, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'notification_dead_letter_list:' || jsonb_build_array(p_kind)::text;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(r.item ORDER BY r.route_id DESC), array_agg(r.route_id::text ORDER BY r.route_id DESC) INTO v_items, v_keys
      FROM (SELECT l.route_id,
                   jsonb_build_object(
                       'route_id', l.route_id, 'notification_id', n.notification_id, 'kind', n.kind, 'user_id', n.user_id,
                       'channel', o.channel, 'attempts', o.attempts, 'reason', l.reason, 'dead_lettered_at', ts(l.created_at)) AS item
              FROM notification_dead_letters AS l JOIN notification_routes AS o USING (route_id) JOIN notifications AS n USING (notification_id)
             WHERE (v_before IS NULL OR l.route_id < v_before)
               AND (p_kind IS NULL OR n.kind = p_kind)
             ORDER BY l.route_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.notification_dead_letter_list(text, text, integer, text) IS
    'Routes that were given up and why, newest first; the id of each is its route''s. GX400 invalid_cursor, GX401 unauthorized.';

CREATE FUNCTION api.notification_dead_letter_retry(p_admin text, p_route_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_route notification_routes%ROWTYPE;
    v_notification notifications%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT * INTO v_route FROM notification_routes WHERE route_id = p_route_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'notification_route_not_found', 'There is no such route.');
    ELSIF v_route.status <> 'dead_lettered' THEN
        PERFORM fail(409, 'invalid_transition', format('A route that is %s is not tried again.', v_route.status),
                     jsonb_build_object('from', v_route.status, 'action', 'retry-dead', 'allowed', '[]'::jsonb));
    END IF;
    DELETE FROM notification_dead_letters WHERE route_id = p_route_id;
    UPDATE notification_routes SET status = 'pending', attempts = 0, next_attempt_at = backend.now() WHERE route_id = p_route_id;
    PERFORM job_defer_once('notifications', 'notification_deliver');
    PERFORM audit(p_admin, 'notification_dead_letter_retry', 'notification_route', p_route_id::text, NULL);
    SELECT * INTO STRICT v_notification FROM notifications WHERE notification_id = v_route.notification_id;
    RETURN notification_with_routes_json(v_notification)::text;
END;
$$;
COMMENT ON FUNCTION api.notification_dead_letter_retry(text, uuid) IS
    'Tries a route that was given up once more. GX401 unauthorized, GX404 notification_route_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.notification_malformed_list(p_admin text, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_before uuid := cursor_read_id('notification_malformed_list', p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(jsonb_build_object(
               'malformed_id', r.malformed_id, 'kind', r.kind, 'idempotency_key', r.idempotency_key, 'user_id', r.user_id,
               'payload', r.payload, 'reason', r.reason, 'created_at', ts(r.created_at)) ORDER BY r.malformed_id DESC),
           array_agg(r.malformed_id::text ORDER BY r.malformed_id DESC)
      INTO v_items, v_keys
      FROM (SELECT m.* FROM notification_malformed_intents AS m
             WHERE v_before IS NULL OR m.malformed_id < v_before
             ORDER BY m.malformed_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page('notification_malformed_list', v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.notification_malformed_list(text, integer, text) IS
    'Intents that no notification could be made of and why, newest first. GX400 invalid_cursor, GX401 unauthorized.';

COMMIT;
