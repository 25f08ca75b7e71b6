-- Verify galaxy-backend:backend/queue on pg

BEGIN;

DO $$
BEGIN
    PERFORM 'procrastinate.procrastinate_defer_jobs_v1(procrastinate.procrastinate_job_to_defer_v1[])'::regprocedure;
    PERFORM 'procrastinate.procrastinate_fetch_job_v2(character varying[], bigint)'::regprocedure;
    PERFORM 'procrastinate.procrastinate_retry_job_v2(bigint, timestamptz, integer, character varying, character varying)'::regprocedure;
    ASSERT has_table_privilege('backend_worker', 'procrastinate.procrastinate_jobs', 'SELECT, INSERT, UPDATE, DELETE'),
        'backend_worker cannot use the queue';
    ASSERT NOT has_table_privilege('backend_api', 'procrastinate.procrastinate_jobs', 'SELECT'),
        'backend_api must not see the queue';
END;
$$;

ROLLBACK;
