-- Revert galaxy-backend:api/applications from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.application_withdraw(uuid, uuid, uuid);
DROP FUNCTION api.application_reject(uuid, uuid, uuid);
DROP FUNCTION api.application_approve(uuid, uuid, uuid);
DROP FUNCTION api.my_application_list(uuid, integer, text);
DROP FUNCTION api.application_list(uuid, uuid, integer, text);
DROP FUNCTION api.application_get(uuid, uuid, uuid);
DROP FUNCTION api.application_create(uuid, uuid, jsonb);

COMMIT;
