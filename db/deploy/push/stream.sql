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

CREATE FUNCTION push.events_sequence(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_head bigint;
    v_count integer;
BEGIN
    -- Positions become visible in their order only because one transaction at a time gives them, to its commit.
    IF NOT pg_try_advisory_xact_lock(push_sequencer_key()) THEN
        RETURN 0;
    END IF;
    SELECT e.head INTO v_head FROM push_epoch AS e;
    WITH taken AS (
        DELETE FROM push_pending AS p
         WHERE p.pending_id = ANY (ARRAY(SELECT q.pending_id FROM push_pending AS q ORDER BY q.pending_id LIMIT p_limit))
        RETURNING p.*
    )
    INSERT INTO push_events (position, event_id, user_id, device_session_id, kind, payload, reason, request_id, trace_id, span_id, created_at)
    SELECT v_head + row_number() OVER (ORDER BY t.pending_id),
           t.event_id, t.user_id, t.device_session_id, t.kind, t.payload, t.reason, t.request_id, t.trace_id, t.span_id, t.created_at
      FROM taken AS t;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count > 0 THEN
        UPDATE push_epoch SET head = v_head + v_count;
        NOTIFY galaxy_push_events;
    END IF;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION push.events_sequence(integer) IS
    'Moves at most so many committed events to their place in the stream; returns how many: 0 for none, or while another does it. Raises nothing of its own.';

CREATE FUNCTION push.events_read(p_after bigint, p_limit integer)
RETURNS TABLE (
    "position" bigint, cursor text, event_id uuid, user_id uuid, device_session_id uuid, kind text, payload text, reason text,
    request_id text, trace_id text, span_id text, created_at timestamptz
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT e.position, push_cursor(p.epoch, e.position), e.event_id, e.user_id, e.device_session_id, e.kind, e.payload::text,
           e.reason, e.request_id, e.trace_id, e.span_id, e.created_at
      FROM push_events AS e, push_epoch AS p
     WHERE e.position > p_after
     ORDER BY e.position
     LIMIT p_limit;
END;
$$;
COMMENT ON FUNCTION push.events_read(bigint, integer) IS
    'The events after a position, in order, at most so many. Raises nothing of its own.';

CREATE FUNCTION push.cursor_resume(p_cursor text, OUT resume_position bigint, OUT is_exact boolean, OUT is_ahead boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_stream push_epoch%ROWTYPE;
    v_position bigint;
BEGIN
    SELECT * INTO STRICT v_stream FROM push_epoch;
    resume_position := v_stream.head;
    is_exact := false;
    is_ahead := false;
    IF p_cursor !~ '^[0-9]{19}-[0-9]{19}$' OR left(p_cursor, 19) <> lpad(v_stream.epoch::text, 19, '0') THEN
        RETURN;
    END IF;
    -- Nineteen nines are more than a bigint holds.
    IF substring(p_cursor FROM 21)::numeric > v_stream.head THEN
        is_ahead := true;
        RETURN;
    END IF;
    v_position := substring(p_cursor FROM 21)::bigint;
    -- Exact when, and only when, nothing after the cursor has been deleted; never a part of it.
    IF v_position >= v_stream.purged_through THEN
        resume_position := v_position;
        is_exact := true;
    END IF;
END;
$$;
COMMENT ON FUNCTION push.cursor_resume(text) IS
    'Where a gateway''s stream goes on: exactly after its cursor, or fresh, from now. is_ahead: a cursor that we never gave. Raises nothing of its own.';

CREATE FUNCTION push.subscriber_claim(p_gateway_client_id text, p_connection_id uuid, p_streamer_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO push_subscribers (gateway_client_id, connection_id, streamer_id)
    VALUES (p_gateway_client_id, p_connection_id, p_streamer_id)
    ON CONFLICT (gateway_client_id) DO UPDATE
        SET connection_id = excluded.connection_id, streamer_id = excluded.streamer_id, connected_at = backend.now();
    NOTIFY galaxy_push_subscribers;
END;
$$;
COMMENT ON FUNCTION push.subscriber_claim(text, uuid, uuid) IS
    'Makes this the stream of a gateway client, in place of an older one. 23514 for an empty or over-long id.';

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

CREATE FUNCTION push.subscribers_live(p_streamer_id uuid) RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT s.connection_id FROM push_subscribers AS s WHERE s.streamer_id = p_streamer_id;
END;
$$;
COMMENT ON FUNCTION push.subscribers_live(uuid) IS
    'The connections of a streamer that have not been replaced. Raises nothing of its own.';

COMMIT;
