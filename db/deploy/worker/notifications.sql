-- Deploy galaxy-backend:worker/notifications to pg
-- requires: backend/notifications
-- requires: backend/games

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION worker.notification_routes_deliver(p_limit integer, p_admin_email text)
RETURNS TABLE (route_id uuid, kind text, status text, error text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_route record;
    v_address text;
    v_game_name text;
BEGIN
    FOR v_route IN
        SELECT r.route_id, r.attempts, n.kind, n.user_id, n.payload, k.is_for_administrators
          FROM notification_routes AS r
          JOIN notifications AS n USING (notification_id)
          JOIN notification_kinds AS k USING (kind)
         WHERE r.status IN ('pending', 'retrying') AND r.channel = 'email' AND r.next_attempt_at <= backend.now()
         ORDER BY r.next_attempt_at, r.route_id
         LIMIT p_limit
           FOR NO KEY UPDATE OF r SKIP LOCKED
    LOOP
        route_id := v_route.route_id;
        kind := v_route.kind;
        error := NULL;
        v_address := CASE
            WHEN v_route.is_for_administrators THEN p_admin_email
            ELSE (SELECT a.email FROM accounts AS a WHERE a.user_id = v_route.user_id)
        END;
        IF v_address IS NULL THEN
            status := 'skipped';
        ELSE
            v_game_name := (SELECT g.game_name FROM games AS g WHERE g.game_id = (v_route.payload ->> 'game_id')::uuid);
            -- What one route fails at must not undo the others.
            BEGIN
                PERFORM mail_enqueue(
                    v_route.kind, v_route.route_id::text, ARRAY[v_address],
                    v_route.payload || jsonb_build_object('game_name', coalesce(v_game_name, 'unknown')), v_route.user_id);
                status := 'delivered';
            EXCEPTION WHEN data_exception OR integrity_constraint_violation OR no_data_found THEN
                error := SQLSTATE || ' ' || SQLERRM;
                status := CASE WHEN v_route.attempts + 1 < setting('notification_max_attempts') THEN 'retrying' ELSE 'dead_lettered' END;
            END;
        END IF;
        UPDATE notification_routes AS r
           SET status = notification_routes_deliver.status, attempts = r.attempts + 1, last_error = left(error, 1000),
               next_attempt_at = backend.now() + make_interval(secs => least(3600, 5 * 2 ^ r.attempts) * (0.5 + random() / 2))
         WHERE r.route_id = v_route.route_id;
        RETURN NEXT;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION worker.notification_routes_deliver(integer, text) IS
    'Puts at most so many due mail notifications into the outbox; p_admin_email is the administrators'' address, null for none. Raises nothing of its own.';

COMMIT;
