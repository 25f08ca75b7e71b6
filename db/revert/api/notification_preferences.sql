-- Revert galaxy-backend:api/notification_preferences from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.notification_preferences_set(uuid, jsonb);
DROP FUNCTION api.notification_preferences_get(uuid);

COMMIT;
