-- Revert galaxy-backend:backend/metrics from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.metrics_add_up(integer);
DROP FUNCTION backend.metric_count(text, jsonb);
DROP TABLE backend.metric_totals;
DROP TABLE backend.metric_changes;

COMMIT;
