-- Revert galaxy-backend:backend/queue_wake from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.job_defer_once(text, text, integer);
DROP TRIGGER wake ON procrastinate.procrastinate_jobs;
ALTER TABLE procrastinate.procrastinate_jobs ENABLE TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1;
DROP FUNCTION backend.tg_procrastinate_jobs__wake();
DROP FUNCTION backend.queue_awake_key();
DROP FUNCTION backend.is_asleep(bigint);

COMMIT;
