-- Verify galaxy-backend:backend/queue_wake on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_before bigint;
BEGIN
    PERFORM 'backend.is_asleep(bigint)'::regprocedure;
    PERFORM 'backend.queue_awake_key()'::regprocedure;
    PERFORM 'backend.tg_procrastinate_jobs__wake()'::regprocedure;
    ASSERT (SELECT t.tgenabled = 'D' FROM pg_trigger AS t
             WHERE t.tgrelid = 'procrastinate.procrastinate_jobs'::regclass
               AND t.tgname = 'procrastinate_jobs_notify_queue_job_inserted_v1'), 'each job notifies twice';
    ASSERT (SELECT t.tgenabled = 'O' FROM pg_trigger AS t
             WHERE t.tgrelid = 'procrastinate.procrastinate_jobs'::regclass AND t.tgname = 'wake'), 'a job wakes nobody';
    SELECT count(*) INTO v_before FROM procrastinate.procrastinate_jobs AS j WHERE j.task_name = 'verify';
    PERFORM backend.job_defer_once('verify', 'verify'), backend.job_defer_once('verify', 'verify');
    ASSERT (SELECT count(*) - v_before = 1 FROM procrastinate.procrastinate_jobs AS j WHERE j.task_name = 'verify'),
        'a transaction defers more than one job that does whatever is waiting';
END;
$$;

ROLLBACK;
