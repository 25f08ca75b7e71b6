-- Revert galaxy-backend:backend/runtime from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.runtime_queue_is_full();
DROP TABLE backend.runtime_logs;
DROP TABLE backend.runtime_health_snapshots;
DROP TABLE backend.runtime_operation_log;
DROP TABLE backend.game_turns;
DROP TABLE backend.player_mappings;
DROP TABLE backend.runtime_records;
DELETE FROM backend.state_transitions WHERE machine = 'runtime';

COMMIT;
