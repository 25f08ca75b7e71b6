-- Revert galaxy-backend:api/administrators from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.administrator_get(text, text);
DROP FUNCTION api.administrator_list(text, integer, text);
DROP FUNCTION api.administrator_bootstrap(text, text);
DROP FUNCTION api.administrator_credential(text);

COMMIT;
