-- Revert galaxy-backend:backend/push from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_push;
DROP FUNCTION backend.push_epoch_begin();
DROP FUNCTION backend.push_head();
DROP FUNCTION backend.push_cursor(bigint, bigint);
DROP FUNCTION backend.push_session_invalidation(uuid, uuid, text);
DROP FUNCTION backend.push_client_event(uuid, uuid, text, jsonb, uuid, text);
DROP FUNCTION backend.push_sequencer_key();
DROP FUNCTION backend.push_awake_key();
DROP TABLE backend.push_heartbeat;
DROP TABLE backend.push_subscribers;
DROP TABLE backend.push_epoch;
DROP TABLE backend.push_events;
DROP TABLE backend.push_pending;

COMMIT;
