-- Revert galaxy-backend:api/blocked_emails from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.blocked_email_delete(text, text);
DROP FUNCTION api.blocked_email_create(text, jsonb);
DROP FUNCTION api.blocked_email_list(text, integer, text);

COMMIT;
