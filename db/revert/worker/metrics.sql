-- Revert galaxy-backend:worker/metrics from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION worker.metrics_read(integer);

COMMIT;
