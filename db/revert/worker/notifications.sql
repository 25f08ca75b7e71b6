-- Revert galaxy-backend:worker/notifications from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION worker.malformed_intents_purge(integer);
DROP FUNCTION worker.notifications_purge(integer);
DROP FUNCTION worker.turn_digests_deliver(integer);
DROP FUNCTION worker.notification_routes_deliver(integer, text);

COMMIT;
