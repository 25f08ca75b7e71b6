-- Revert galaxy-backend:backend/audit from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.audit_json(backend.audit_log);
DROP FUNCTION backend.audit(text, text, text, text, jsonb);
DROP TABLE backend.audit_log;
DROP FUNCTION backend.tg_audit_log__append_only();

COMMIT;
