-- Verify galaxy-backend:backend/jobs on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_job_id bigint;
BEGIN
    PERFORM set_config('backend.request_id', 'verify-request', true);
    v_job_id := backend.job_defer('verify', 'verify', '{"a": 1}');
    ASSERT (SELECT j.args = '{"a": 1, "context": {"request_id": "verify-request"}}'
              FROM procrastinate.procrastinate_jobs AS j WHERE j.id = v_job_id), 'a job does not carry its context';
    PERFORM 'backend.traceparent()'::regprocedure;
END;
$$;

ROLLBACK;
