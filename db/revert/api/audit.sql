-- Revert galaxy-backend:api/audit from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.audit_list(text, text, text, text, text, timestamptz, timestamptz, integer, text);

COMMIT;
