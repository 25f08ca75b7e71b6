-- Deploy galaxy-backend:backend/push to pg
-- requires: backend/settings
-- requires: backend/queue_wake
-- requires: backend/invariants

-- Why: an event exists if and only if its transaction committed, and every reader sees all of them in one order. A transaction
-- cannot know its place in that order before it commits, so events are inserted without one (push_pending); the sequencer moves
-- the committed ones to their place in the stream (push_events).

BEGIN;
SET LOCAL ROLE backend_owner;

-- No foreign keys to people or sessions here: an event is a message that is on its way, lives for minutes, and must neither
-- hold up nor be held up by the row that it speaks of.
CREATE TABLE backend.push_pending (
    pending_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL,
    user_id uuid NOT NULL,
    device_session_id uuid,
    kind text,
    payload jsonb,
    reason text,
    request_id text,
    trace_id text,
    span_id text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    writer xid8 NOT NULL,
    CONSTRAINT push_pending_is_event_or_invalidation
        CHECK ((kind IS NOT NULL AND payload IS NOT NULL AND reason IS NULL) OR (kind IS NULL AND payload IS NULL AND reason IS NOT NULL))
) WITH (fillfactor = 100, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE backend.push_pending IS
    'Events that have no place in the stream yet. An event for a client has kind and payload; an invalidation of sessions has reason.';
COMMENT ON COLUMN backend.push_pending.device_session_id IS 'Null: every device of the person.';
COMMENT ON COLUMN backend.push_pending.span_id IS 'The span that caused it, where the trace is recorded: the sending''s parent.';
COMMENT ON COLUMN backend.push_pending.writer IS
    'The transaction that wrote it, which had this number before the row had its own: the sequencer relies on that order.';
-- What was left open when everything else had been moved is found by its transaction. Of nothing else, or what is found by
-- pending_id might be looked for here, through all of it.
CREATE INDEX push_pending_by_writer ON backend.push_pending (writer);

CREATE TABLE backend.push_events (
    position bigint PRIMARY KEY,
    event_id uuid NOT NULL,
    user_id uuid NOT NULL,
    device_session_id uuid,
    kind text,
    payload jsonb,
    reason text,
    request_id text,
    trace_id text,
    span_id text,
    created_at timestamptz NOT NULL,
    sequenced_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT push_events_is_event_or_invalidation
        CHECK ((kind IS NOT NULL AND payload IS NOT NULL AND reason IS NULL) OR (kind IS NULL AND payload IS NULL AND reason IS NOT NULL))
);
COMMENT ON TABLE backend.push_events IS 'The stream: committed events at their positions, kept for the freshness window and a minute.';

CREATE TABLE backend.push_epoch (
    is_only boolean PRIMARY KEY DEFAULT true CONSTRAINT push_epoch_has_one_row CHECK (is_only),
    epoch bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp())::bigint,
    purged_through bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.push_epoch IS 'One row: the epoch of the stream, and the last position that retention has deleted.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.push_epoch FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();
INSERT INTO backend.push_epoch DEFAULT VALUES;

CREATE TABLE backend.push_subscribers (
    gateway_client_id text PRIMARY KEY CONSTRAINT push_subscribers_client_id_has_1_to_128_characters
        CHECK (length(gateway_client_id) BETWEEN 1 AND 128),
    connection_id uuid NOT NULL,
    streamer_id uuid NOT NULL,
    claim bigint GENERATED ALWAYS AS IDENTITY,
    connected_at timestamptz NOT NULL DEFAULT backend.now(),
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.push_subscribers IS 'The newest stream of each gateway client; an older one of the same id has been replaced.';
COMMENT ON COLUMN backend.push_subscribers.claim IS 'Grows with every stream of the client, so that a newer one is told from one that a backup brought back.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.push_subscribers FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

-- Why: the HTTP program tells whether a streamer works anywhere. One row for all of them: it is asked whether there is any.
CREATE TABLE backend.push_heartbeat (
    is_only boolean PRIMARY KEY DEFAULT true CONSTRAINT push_heartbeat_is_one_row CHECK (is_only),
    seen_at timestamptz NOT NULL DEFAULT '-infinity',
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.push_heartbeat IS 'One row: when a streamer that serves was last heard of.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.push_heartbeat FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();
INSERT INTO backend.push_heartbeat DEFAULT VALUES;

-- The keys of our advisory locks in one place.
CREATE FUNCTION backend.push_awake_key() RETURNS bigint
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN x'6a1a0001'::bigint;
COMMENT ON FUNCTION backend.push_awake_key() IS 'Advisory lock: held exclusively by a sequencer while it is awake, so that writers need not notify.';

CREATE FUNCTION backend.push_sequencer_key() RETURNS bigint
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN x'6a1a0002'::bigint;
COMMENT ON FUNCTION backend.push_sequencer_key() IS 'Advisory lock: held by the transaction that gives positions.';

CREATE FUNCTION backend.push_client_event(
    p_user_id uuid, p_device_session_id uuid, p_kind text, p_payload jsonb, p_event_id uuid, p_request_id text
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    -- Here, so that it is there before the row's own number is.
    v_writer CONSTANT xid8 := pg_current_xact_id();
BEGIN
    INSERT INTO push_pending (event_id, user_id, device_session_id, kind, payload, request_id, trace_id, span_id, writer)
    VALUES (p_event_id, p_user_id, p_device_session_id, p_kind, p_payload, p_request_id, split_part(traceparent(), '-', 2), trace_span_id(), v_writer);
    IF is_asleep(push_awake_key()) THEN
        NOTIFY galaxy_push_pending;
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.push_client_event(uuid, uuid, text, jsonb, uuid, text) IS
    'An event for a person''s device (null: all of them) in this transaction.';

CREATE FUNCTION backend.push_session_invalidation(p_user_id uuid, p_device_session_id uuid, p_reason text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    -- Here, so that it is there before the row's own number is.
    v_writer CONSTANT xid8 := pg_current_xact_id();
BEGIN
    INSERT INTO push_pending (event_id, user_id, device_session_id, reason, request_id, trace_id, span_id, writer)
    VALUES (uuid_v7(), p_user_id, p_device_session_id, p_reason, request_id(), split_part(traceparent(), '-', 2), trace_span_id(), v_writer);
    IF is_asleep(push_awake_key()) THEN
        NOTIFY galaxy_push_pending;
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.push_session_invalidation(uuid, uuid, text) IS
    'Tells the gateways, in this transaction, that a session (null: every session of the person) is no longer good.';

-- Zero-padded to what a bigint can need, so that cursors compare byte by byte as their numbers do.
CREATE FUNCTION backend.push_cursor(p_epoch bigint, p_position bigint) RETURNS text
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN lpad(p_epoch::text, 19, '0') || '-' || lpad(p_position::text, 19, '0');
COMMENT ON FUNCTION backend.push_cursor(bigint, bigint) IS 'A position in the stream as the string that gateways keep.';

-- Not a column: a row that every batch changes would grow as long as any transaction is open, and with it the time to read it.
CREATE FUNCTION backend.push_head() RETURNS bigint
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (SELECT greatest(p.purged_through, (SELECT max(e.position) FROM backend.push_events AS e)) FROM backend.push_epoch AS p);
COMMENT ON FUNCTION backend.push_head() IS 'The position that was given last.';

-- For the operator who has restored a backup: positions after it would be given a second time, to other events.
CREATE FUNCTION backend.push_epoch_begin() RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_epoch bigint;
BEGIN
    -- Greater than the one before whatever the clock says, as cursors always grow.
    UPDATE push_epoch SET epoch = greatest(epoch + 1, extract(epoch FROM clock_timestamp())::bigint) RETURNING epoch INTO v_epoch;
    DELETE FROM push_subscribers;
    RETURN push_cursor(v_epoch, push_head());
END;
$$;
COMMENT ON FUNCTION backend.push_epoch_begin() IS
    'Begins a new epoch of the stream: every cursor given before starts fresh. Returns the cursor that it begins with.';

CREATE VIEW backend.invariants_push AS
SELECT 'push_event_outlived_its_purge' AS invariant, e.position AS object_id, 'purged through ' || p.purged_through AS details
  FROM backend.push_events AS e, backend.push_epoch AS p
 WHERE e.position <= p.purged_through
UNION ALL
SELECT 'push_stream_has_a_hole', e.position, 'the position before it is missing'
  FROM backend.push_events AS e, backend.push_epoch AS p
 WHERE e.position - 1 > p.purged_through
   AND NOT EXISTS (SELECT FROM backend.push_events AS b WHERE b.position = e.position - 1);
COMMENT ON VIEW backend.invariants_push IS 'What must never be seen in the push stream.';

COMMIT;
