-- Verify galaxy-backend:backend/push on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT pending_id, event_id, user_id, device_session_id, kind, payload, reason, request_id, trace_id, span_id, created_at, writer
  FROM backend.push_pending WHERE false;
SELECT position, event_id, user_id, device_session_id, kind, payload, reason, request_id, trace_id, span_id, created_at, sequenced_at
  FROM backend.push_events WHERE false;
SELECT gateway_client_id, connection_id, streamer_id, claim, connected_at FROM backend.push_subscribers WHERE false;
SELECT is_only, seen_at FROM backend.push_heartbeat WHERE false;

DO $$
BEGIN
    ASSERT (SELECT count(*) = 1 FROM backend.push_epoch), 'the stream must have one epoch';
    ASSERT (SELECT count(*) = 1 FROM backend.push_heartbeat), 'there is nowhere for streamers to be heard of';
    PERFORM backend.push_session_invalidation(gen_random_uuid(), NULL, 'logout');
    ASSERT EXISTS (SELECT FROM backend.push_pending WHERE reason = 'logout'), 'an invalidation is not pending';
    ASSERT backend.push_cursor(1, 9) < backend.push_cursor(1, 10), 'cursors do not grow';
    ASSERT backend.push_epoch_begin() > backend.push_cursor(0, backend.push_head()), 'an epoch does not begin';
    PERFORM FROM backend.invariants_push;
    PERFORM 'backend.push_awake_key()'::regprocedure;
    PERFORM 'backend.push_sequencer_key()'::regprocedure;
    PERFORM 'backend.push_client_event(uuid, uuid, text, jsonb, uuid, text)'::regprocedure;
END;
$$;

ROLLBACK;
