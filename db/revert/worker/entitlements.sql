-- Revert galaxy-backend:worker/entitlements from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION worker.entitlements_settle(integer);

COMMIT;
