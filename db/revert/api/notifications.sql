-- Revert galaxy-backend:api/notifications from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.notification_malformed_list(text, integer, text);
DROP FUNCTION api.notification_dead_letter_retry(text, uuid);
DROP FUNCTION api.notification_dead_letter_list(text, text, integer, text);
DROP FUNCTION api.notification_get(text, uuid);
DROP FUNCTION api.notification_list(text, text, uuid, text, integer, text);

COMMIT;
