-- Revert galaxy-backend:backend/administrators from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.administrator_find(text);
DROP FUNCTION backend.administrator_require(text);
DROP FUNCTION backend.administrator_json(backend.admin_accounts);
DROP FUNCTION backend.admin_attempts_wait(bytea, numeric);
DROP FUNCTION backend.admin_attempts_key(text, inet);
DROP TABLE backend.admin_attempts;
DELETE FROM backend.constraint_errors WHERE constraint_name = 'admin_accounts_pkey';
DROP TABLE backend.admin_accounts;

COMMIT;
