-- Verify galaxy-backend:backend/metrics on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT change_id, metric, labels, created_at FROM backend.metric_changes WHERE false;
SELECT metric, labels, total, created_at, updated_at FROM backend.metric_totals WHERE false;

DO $$
BEGIN
    PERFORM 'backend.metric_count(text, jsonb)'::regprocedure;
    PERFORM 'backend.metrics_add_up(integer)'::regprocedure;
END;
$$;

ROLLBACK;
