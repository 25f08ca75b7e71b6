-- Deploy galaxy-backend:push/stream to pg
-- requires: backend/push

-- Why: what a streamer needs: to sequence, to read on, to resume, and to know that it is the newest stream of a client.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION push.sequencer_wake() RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pg_try_advisory_lock(push_awake_key());
END;
$$;
COMMENT ON FUNCTION push.sequencer_wake() IS
    'Makes this connection the awake sequencer, which writers need not notify; false where another one is. Raises nothing of its own.';

CREATE FUNCTION push.sequencer_sleep() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_unlock(push_awake_key());
END;
$$;
COMMENT ON FUNCTION push.sequencer_sleep() IS
    'From now on writers notify again. Sequence once more after it, before sleeping. Raises nothing of its own.';

-- What is pending is nothing at one moment and a million at the next, so that statistics mislead: always by the indexes, planned
-- once. That makes every plan look dear, and what looks dear would be compiled.
CREATE FUNCTION push.events_sequence(p_limit integer)
RETURNS TABLE (
    "position" bigint, cursor text, event_id text, user_id text, device_session_id text, kind text, payload text, reason text,
    request_id text, trace_id text, span_id text, created_at double precision
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
DECLARE
    -- What this session knows from when it last left nothing: '{pending_id given last, first transaction that had not begun,
    -- snapshot}'. Whatever it could see then is gone; what has come since is of a transaction that began later, and has a later
    -- pending_id, or of one that was open. So what was moved need not be looked at again: its rows cannot be cleared
    -- away while any old transaction is open, and there may be millions. Nothing known: all are looked at.
    v_known CONSTANT text[] := nullif(current_setting('backend.push_known', true), '')::text[];
    v_known_id CONSTANT bigint := coalesce(v_known[1]::bigint, 0);
    v_known_transaction CONSTANT xid8 := coalesce(v_known[2], '0')::xid8;
    v_known_snapshot CONSTANT pg_snapshot := v_known[3]::pg_snapshot;
    v_now CONSTANT timestamptz := backend.now();  -- once, not for each event
    v_last_id bigint;
    v_snapshot pg_snapshot;
    v_head bigint;
    v_count integer;
BEGIN
    -- Positions become visible in their order only because one transaction at a time gives them, to its commit.
    IF NOT pg_try_advisory_xact_lock(push_sequencer_key()) THEN
        RETURN;
    END IF;
    -- Each before the next, in a statement of its own: the id, the snapshot, then what is taken. + 0, or the index of
    -- pending_id would be read from its beginning for the sake of the order.
    SELECT s.last_value INTO v_last_id FROM push_pending_pending_id_seq AS s;
    v_snapshot := pg_current_snapshot();
    v_head := push_head();
    WITH taken AS (
        DELETE FROM push_pending AS p
         WHERE p.pending_id = ANY (ARRAY(
             SELECT q.pending_id
               FROM ((SELECT s.pending_id FROM push_pending AS s
                       WHERE s.pending_id >= v_known_id ORDER BY s.pending_id LIMIT p_limit)
                     UNION
                     (SELECT o.pending_id FROM push_pending AS o
                       WHERE o.writer = ANY (ARRAY(SELECT pg_snapshot_xip(v_known_snapshot))) ORDER BY o.pending_id + 0 LIMIT p_limit)
                     UNION
                     (SELECT o.pending_id FROM push_pending AS o
                       WHERE o.writer >= pg_snapshot_xmax(v_known_snapshot) AND o.writer < v_known_transaction
                       ORDER BY o.pending_id + 0 LIMIT p_limit)) AS q
              ORDER BY q.pending_id LIMIT p_limit))
        RETURNING p.*
    )
    INSERT INTO push_events (
        position, event_id, user_id, device_session_id, kind, payload, reason, request_id, trace_id, span_id, created_at, sequenced_at)
    SELECT v_head + row_number() OVER (ORDER BY t.pending_id), t.event_id, t.user_id, t.device_session_id, t.kind, t.payload,
           t.reason, t.request_id, t.trace_id, t.span_id, t.created_at, v_now
      FROM taken AS t;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count > 0 THEN
        NOTIFY galaxy_push_events;
        RETURN QUERY SELECT r.* FROM push.events_read(v_head, v_count) AS r;
    END IF;
    -- Where others have moved what came, this takes a transaction's number now and then, to know as much as they do.
    IF v_count < p_limit AND (v_count > 0 OR v_last_id > v_known_id + 100) THEN
        PERFORM set_config('backend.push_known', ARRAY[v_last_id::text, pg_current_xact_id()::text, v_snapshot::text]::text, false);
    END IF;
END;
$$;
COMMENT ON FUNCTION push.events_sequence(integer) IS
    'Moves at most so many committed events to their place in the stream; returns them as events_read() does, to be sent once this is committed: none while another does it. Raises nothing of its own.';

CREATE FUNCTION push.events_read(p_after bigint, p_limit integer)
RETURNS TABLE (
    "position" bigint, cursor text, event_id text, user_id text, device_session_id text, kind text, payload text, reason text,
    request_id text, trace_id text, span_id text, created_at double precision
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT e.position, push_cursor(p.epoch, e.position), e.event_id::text, e.user_id::text, coalesce(e.device_session_id::text, ''),
           e.kind, e.payload::text, e.reason, coalesce(e.request_id, ''), coalesce(e.trace_id, ''), coalesce(e.span_id, ''),
           extract(epoch FROM e.created_at)::double precision
      FROM push_events AS e, push_epoch AS p
     WHERE e.position > p_after
     ORDER BY e.position
     LIMIT p_limit;
END;
$$;
COMMENT ON FUNCTION push.events_read(bigint, integer) IS
    'The events after a position, in order, at most so many: kind and payload or reason, '''' for what there is none of, created_at in Unix seconds. Raises nothing of its own.';

CREATE FUNCTION push.cursor_resume(
    p_cursor text, OUT resume_position bigint, OUT resume_cursor text, OUT is_exact boolean, OUT is_ahead boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_epoch bigint;
    v_purged_through bigint;
    v_head bigint;
    v_position numeric;  -- nineteen nines are more than a bigint holds
BEGIN
    SELECT e.epoch, e.purged_through, push_head() INTO STRICT v_epoch, v_purged_through, v_head FROM push_epoch AS e;
    IF p_cursor ~ '^[0-9]{19}-[0-9]{19}$' AND left(p_cursor, 19) = lpad(v_epoch::text, 19, '0') THEN
        v_position := substring(p_cursor FROM 21)::numeric;
    END IF;
    -- Exact when, and only when, nothing after the cursor has been deleted; never a part of it.
    is_ahead := coalesce(v_position > v_head, false);
    is_exact := coalesce(v_position BETWEEN v_purged_through AND v_head, false);
    resume_position := CASE WHEN is_exact THEN v_position::bigint ELSE v_head END;
    resume_cursor := push_cursor(v_epoch, resume_position);
END;
$$;
COMMENT ON FUNCTION push.cursor_resume(text) IS
    'Where a gateway''s stream goes on: exactly after its cursor, or fresh, from now; either way after resume_cursor. is_ahead: a cursor that we never gave. Raises nothing of its own.';

CREATE FUNCTION push.subscriber_claim(p_gateway_client_id text, p_connection_id uuid, p_streamer_id uuid) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_claim bigint;
BEGIN
    INSERT INTO push_subscribers (gateway_client_id, connection_id, streamer_id)
    VALUES (p_gateway_client_id, p_connection_id, p_streamer_id)
    ON CONFLICT (gateway_client_id) DO UPDATE
        -- A number that is taken here, with the row locked: of two claims at once the one that stays has the greater.
        SET connection_id = excluded.connection_id, streamer_id = excluded.streamer_id, claim = DEFAULT, connected_at = backend.now()
    RETURNING claim INTO v_claim;
    NOTIFY galaxy_push_subscribers;
    RETURN v_claim;
END;
$$;
COMMENT ON FUNCTION push.subscriber_claim(text, uuid, uuid) IS
    'Makes this the stream of a gateway client, in place of an older one; returns the number of the claim. 23514 for an empty or over-long id.';

CREATE FUNCTION push.subscriber_release(p_gateway_client_id text, p_connection_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    -- Only its own: the client may have come back already, here or elsewhere.
    DELETE FROM push_subscribers AS s
     WHERE s.gateway_client_id = p_gateway_client_id AND s.connection_id = p_connection_id;
END;
$$;
COMMENT ON FUNCTION push.subscriber_release(text, uuid) IS 'Forgets a stream that has ended. Raises nothing of its own.';

CREATE FUNCTION push.subscribers_newest(p_gateway_client_ids text[]) RETURNS TABLE (connection_id uuid, gateway_client_id text, claim bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT s.connection_id, s.gateway_client_id, s.claim FROM push_subscribers AS s WHERE s.gateway_client_id = ANY (p_gateway_client_ids);
END;
$$;
COMMENT ON FUNCTION push.subscribers_newest(text[]) IS
    'The newest stream of each of these gateway clients, none for one that has no stream. A stream of a lesser claim was replaced. Raises nothing of its own.';

CREATE FUNCTION push.streamer_beat() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE push_heartbeat SET seen_at = backend.now();
END;
$$;
COMMENT ON FUNCTION push.streamer_beat() IS 'Says that a streamer serves, now. Raises nothing of its own.';

COMMIT;
