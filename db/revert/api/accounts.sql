-- Revert galaxy-backend:api/accounts from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.account_internal_get(uuid);
DROP FUNCTION api.my_account_delete(uuid);
DROP FUNCTION api.my_settings_update(uuid, jsonb);
DROP FUNCTION api.my_profile_update(uuid, jsonb);
DROP FUNCTION api.my_account_get(uuid);

COMMIT;
