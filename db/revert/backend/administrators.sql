-- Revert galaxy-backend:backend/administrators from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.administrator_require(text);
DROP FUNCTION backend.administrator_json(backend.admin_accounts);
DROP TABLE backend.admin_accounts;

COMMIT;
