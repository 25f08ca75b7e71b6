-- Verify galaxy-backend:backend/queue_base on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT id, queue_name, task_name, lock, queueing_lock, args, status, scheduled_at, attempts
  FROM procrastinate.procrastinate_jobs WHERE false;
SELECT id, job_id, type, at FROM procrastinate.procrastinate_events WHERE false;

ROLLBACK;
