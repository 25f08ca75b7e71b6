-- Revert galaxy-backend:backend/runtime_rules from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.runtime_json(backend.runtime_records);
DROP FUNCTION backend.runtime_snapshot(uuid, integer, jsonb, bigint);
DROP FUNCTION backend.runtime_operation_end(uuid, bigint, text, text);
DROP FUNCTION backend.runtime_held(uuid, bigint);

COMMIT;
