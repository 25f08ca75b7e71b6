-- Deploy galaxy-backend:worker/notifications to pg
-- requires: backend/notifications

-- Why: what could not be delivered with its cause: mail to the administrators, whose address only the worker knows; what failed;
-- and reminders of turns, which wait until it is known whether they are needed.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION worker.notification_routes_deliver(p_limit integer, p_admin_email text)
RETURNS TABLE (route_id uuid, kind text, is_for_administrators boolean, status text, error text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_route record;
    v_problem text;
BEGIN
    FOR v_route IN
        SELECT r.route_id, n.kind, n.user_id, n.payload, n AS notification, k.is_for_administrators, a.email
          FROM notification_routes AS r
          JOIN notifications AS n USING (notification_id)
          JOIN notification_kinds AS k USING (kind)
          LEFT JOIN accounts AS a USING (user_id)
         WHERE r.status IN ('pending', 'retrying') AND NOT r.is_digest AND r.next_attempt_at <= backend.now()
         ORDER BY r.next_attempt_at, r.route_id
         LIMIT p_limit
           FOR NO KEY UPDATE OF r SKIP LOCKED
    LOOP
        v_problem := notification_problem_now(v_route.notification, 'email');
        IF v_problem IS NOT NULL THEN
            PERFORM notification_route_settle(v_route.route_id, 'skipped', v_problem);
        ELSE
            PERFORM notification_mail(
                v_route.kind, ARRAY[v_route.route_id], CASE WHEN v_route.is_for_administrators THEN p_admin_email ELSE v_route.email END,
                v_route.payload, v_route.user_id);
        END IF;
        RETURN QUERY SELECT r.route_id, v_route.kind, v_route.is_for_administrators, r.status, r.last_error
                       FROM notification_routes AS r WHERE r.route_id = v_route.route_id;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION worker.notification_routes_deliver(integer, text) IS
    'Settles at most so many routes that are due, but for those of digests; p_admin_email is the administrators'' address, null for none. Raises nothing of its own.';

CREATE FUNCTION worker.turn_digests_deliver(p_limit integer)
RETURNS TABLE (route_id uuid, kind text, is_for_administrators boolean, status text, error text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
    v_route record;
    v_problem text;
    v_looked_at uuid[];
    v_route_ids uuid[];
    v_lines text;
BEGIN
    -- The person is locked: their mail of the day is one, however many workers look.
    FOR v_account IN
        SELECT a.* FROM accounts AS a
         WHERE a.user_id IN (
             SELECT n.user_id FROM notification_routes AS r JOIN notifications AS n USING (notification_id)
              WHERE r.status IN ('pending', 'retrying') AND r.is_digest AND r.next_attempt_at <= backend.now())
         ORDER BY a.user_id
         LIMIT p_limit
           FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        v_looked_at := '{}';
        v_route_ids := '{}';
        FOR v_route IN
            SELECT r.route_id, n AS notification
              FROM notification_routes AS r JOIN notifications AS n USING (notification_id)
             WHERE n.user_id = v_account.user_id AND r.status IN ('pending', 'retrying') AND r.is_digest
               AND r.next_attempt_at <= backend.now()
             ORDER BY r.route_id
               FOR NO KEY UPDATE OF r
        LOOP
            v_problem := notification_problem_now(v_route.notification, 'email');
            v_looked_at := v_looked_at || v_route.route_id;
            IF v_problem IS NOT NULL THEN
                PERFORM notification_route_settle(v_route.route_id, 'skipped', v_problem);
            ELSE
                v_route_ids := v_route_ids || v_route.route_id;
            END IF;
        END LOOP;
        IF v_route_ids <> '{}' THEN
            SELECT string_agg(t.line, E'\n' ORDER BY t.line) INTO v_lines
              FROM (SELECT format('%s: turn %s', notification_values(jsonb_build_object('game_id', n.payload ->> 'game_id')) ->> 'game_name',
                                  string_agg(n.payload ->> 'turn', ', ' ORDER BY (n.payload ->> 'turn')::integer)) AS line
                      FROM notification_routes AS r JOIN notifications AS n USING (notification_id)
                     WHERE r.route_id = ANY (v_route_ids)
                     GROUP BY n.payload ->> 'game_id') AS t;
            PERFORM notification_mail(
                'game.turn.digest', v_route_ids, v_account.email, jsonb_build_object('turns', v_lines), v_account.user_id);
        END IF;
        RETURN QUERY SELECT r.route_id, 'game.turn.ready'::text, false, r.status, r.last_error
                       FROM notification_routes AS r WHERE r.route_id = ANY (v_looked_at) ORDER BY r.route_id;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION worker.turn_digests_deliver(integer) IS
    'Settles the reminders that wait for the mail of the day, for at most so many people: one mail for each who has been away. Raises nothing of its own.';

CREATE FUNCTION worker.notifications_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_ids uuid[];
BEGIN
    v_ids := ARRAY(
        SELECT n.notification_id FROM notifications AS n
         WHERE n.created_at <= backend.now() - setting_interval('notification_retention')
           AND NOT EXISTS (
               SELECT FROM notification_routes AS r
                WHERE r.notification_id = n.notification_id
                  AND (r.status IN ('pending', 'retrying')
                       OR (r.status = 'dead_lettered' AND r.updated_at > backend.now() - setting_interval('dead_letter_retention'))))
         ORDER BY n.created_at LIMIT p_limit
           FOR NO KEY UPDATE SKIP LOCKED);
    DELETE FROM notification_dead_letters AS l USING notification_routes AS r
     WHERE r.route_id = l.route_id AND r.notification_id = ANY (v_ids);
    DELETE FROM notification_routes WHERE notification_id = ANY (v_ids);
    DELETE FROM notifications WHERE notification_id = ANY (v_ids);
    RETURN cardinality(v_ids);
END;
$$;
COMMENT ON FUNCTION worker.notifications_purge(integer) IS
    'Deletes at most so many notifications that have been done with for long; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.malformed_intents_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM notification_malformed_intents AS m
     WHERE m.malformed_id = ANY (ARRAY(
         SELECT o.malformed_id FROM notification_malformed_intents AS o
          WHERE o.created_at <= backend.now() - setting_interval('notification_retention')
          ORDER BY o.created_at LIMIT p_limit
            FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.malformed_intents_purge(integer) IS
    'Deletes at most so many malformed intents that are old; returns how many. Raises nothing of its own.';

COMMIT;
