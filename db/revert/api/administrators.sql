-- Revert galaxy-backend:api/administrators from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.administrator_reset_password(text, text, jsonb, text);
DROP FUNCTION api.administrator_enable(text, text);
DROP FUNCTION api.administrator_disable(text, text);
DROP FUNCTION api.administrator_create(text, jsonb, text);
DROP FUNCTION api.administrator_get(text, text);
DROP FUNCTION api.administrator_list(text, integer, text);
DROP FUNCTION api.administrator_bootstrap(text, text);
DROP FUNCTION api.administrator_used(text, inet);
DROP FUNCTION api.administrator_attempt_failed(text, inet);
DROP FUNCTION api.administrator_credential(text, inet);

COMMIT;
