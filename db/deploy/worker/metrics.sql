-- Deploy galaxy-backend:worker/metrics to pg
-- requires: backend/metrics
-- requires: backend/notifications

-- Why: figures that are read from tables come from the job program alone, which asks for all of them in one call now and then. What
-- is counted by looking is counted up to a bound: a backlog beyond it is told as large, and is not made worse by counting.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION worker.metrics_read(p_bound integer) RETURNS TABLE (metric text, labels jsonb, value bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM metrics_add_up(p_bound);
    RETURN QUERY SELECT t.metric, t.labels, t.total FROM metric_totals AS t;
    RETURN QUERY
    SELECT 'mail_outbox_depth', jsonb_build_object('state', s),
           (SELECT count(*) FROM (SELECT FROM mail_deliveries AS d
                                   -- Twice, so that the index of what is due serves.
                                   WHERE d.status = s AND d.status IN ('pending', 'retrying') LIMIT p_bound) AS d)
      FROM unnest(ARRAY['pending', 'retrying']) AS s;
    RETURN QUERY
    SELECT 'mail_outbox_depth', '{"state": "dead_lettered"}'::jsonb, count(*)
      FROM (SELECT FROM mail_dead_letters LIMIT p_bound) AS d;
    RETURN QUERY
    SELECT 'jobs_queued', jsonb_build_object('queue', j.queue_name), count(*)
      FROM (SELECT o.queue_name FROM procrastinate_jobs AS o WHERE o.status = 'todo' LIMIT p_bound) AS j
     GROUP BY j.queue_name;
END;
$$;
COMMENT ON FUNCTION worker.metrics_read(integer) IS
    'The figures that only the database has, each counted to at most so many; queues that are empty are left out. Raises nothing of its own.';

COMMIT;
