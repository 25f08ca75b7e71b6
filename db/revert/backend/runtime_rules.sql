-- Revert galaxy-backend:backend/runtime_rules from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.runtime_json(backend.runtime_records);
DROP FUNCTION backend.runtime_logs_json(backend.runtime_logs);
DROP FUNCTION backend.runtime_of_running_game(backend.games);
DROP FUNCTION backend.runtime_queue_require();
DROP FUNCTION backend.runtime_snapshot(uuid, integer, jsonb, bigint);
DROP FUNCTION backend.runtime_restart(uuid, text, text);
DROP FUNCTION backend.runtime_health_note(uuid, boolean, text);
DROP FUNCTION backend.runtime_failure_tell(backend.runtime_records, text, text);
DROP FUNCTION backend.runtime_operation_done(backend.runtime_records, text, text);
DROP FUNCTION backend.runtime_operation_begin(backend.runtime_records, text);
DROP FUNCTION backend.runtime_operation_end(uuid, bigint, text, text);
DROP FUNCTION backend.runtime_held(uuid, bigint);

COMMIT;
