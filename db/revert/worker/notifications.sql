-- Revert galaxy-backend:worker/notifications from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION worker.notification_routes_deliver(integer, text);

COMMIT;
