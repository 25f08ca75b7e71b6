-- Revert galaxy-backend:worker/jobs from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION worker.queue_announce(jsonb);
DROP FUNCTION worker.queue_sleep();
DROP FUNCTION worker.queue_wake();
DROP FUNCTION worker.jobs_purge(integer);
DROP FUNCTION worker.jobs_rescue(integer);

COMMIT;
