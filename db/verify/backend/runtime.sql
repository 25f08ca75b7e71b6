-- Verify galaxy-backend:backend/runtime on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT game_id, wanted, status, generation, engine_version, image_ref, container_id, endpoint, current_turn, next_turn_at, skip_next_turn,
       turn_requested_at, turn_is_outstanding, start_operation, unwell_since, replaced_at, lease_number, lease_until, next_attempt_at, started_at, last_observed_at, finished_at FROM backend.runtime_records WHERE false;
SELECT game_id, user_id, player_id, race_name FROM backend.player_mappings WHERE false;
SELECT game_id, turn, players, lease_number FROM backend.game_turns WHERE false;
SELECT game_id, operation, generation, lease_number, started_at, finished_at, outcome, error FROM backend.runtime_operation_log WHERE false;
SELECT game_id, is_healthy, details FROM backend.runtime_health_snapshots WHERE false;
SELECT game_id, requested_at, taken_at, generation, content, error FROM backend.runtime_logs WHERE false;

DO $$
BEGIN
    ASSERT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'follow_edges' AND tgrelid = 'backend.runtime_records'::regclass),
        'a runtime''s state can be left by hand';
    ASSERT (SELECT NOT p.prosecdef AND p.proowner = 'backend_owner'::regrole FROM pg_proc AS p WHERE p.oid = 'backend.runtime_queue_is_full()'::regprocedure),
        'backend.runtime_queue_is_full() is not a helper of the owner';
END;
$$;

ROLLBACK;
