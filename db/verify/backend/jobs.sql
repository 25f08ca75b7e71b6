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
    PERFORM 'backend.trace_span_id()'::regprocedure;
    ASSERT backend.retry_after(1) <= interval '5 seconds' AND backend.retry_after(100) BETWEEN interval '30 minutes' AND interval '1 hour',
        'what failed is not tried again in time';
END;
$$;

ROLLBACK;
