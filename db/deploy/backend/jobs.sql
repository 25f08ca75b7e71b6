-- Deploy galaxy-backend:backend/jobs to pg
-- requires: backend/queue

-- Why: an effect is committed with its cause, so the function that changes state also defers the job. The context of the
-- request goes with it (request id, W3C traceparent), so that a trace and the logs go on in another process.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.request_id() RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN nullif(current_setting('backend.request_id', true), '');
COMMENT ON FUNCTION backend.request_id() IS 'The id of the request or job that this transaction serves; null for none.';

CREATE FUNCTION backend.traceparent() RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN nullif(current_setting('backend.traceparent', true), '');
COMMENT ON FUNCTION backend.traceparent() IS 'The W3C trace context of the caller; null for none.';

CREATE FUNCTION backend.trace_span_id() RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN substring(backend.traceparent() FROM '^[0-9a-f]{2}-[0-9a-f]{32}-([0-9a-f]{16})-[0-9a-f][13579bdf]$');
COMMENT ON FUNCTION backend.trace_span_id() IS 'The caller''s span, where its trace is recorded; null for none.';

CREATE FUNCTION backend.job_defer(
    p_queue text, p_task text, p_args jsonb DEFAULT '{}', p_lock text DEFAULT NULL, p_priority integer DEFAULT 0
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_context jsonb := jsonb_strip_nulls(jsonb_build_object('request_id', request_id(), 'traceparent', traceparent()));
BEGIN
    RETURN (procrastinate_defer_jobs_v1(ARRAY[
        ROW(p_queue, p_task, p_priority, p_lock, NULL, p_args || jsonb_build_object('context', v_context), NULL)
    ]::procrastinate_job_to_defer_v1[]))[1];
END;
$$;
COMMENT ON FUNCTION backend.job_defer(text, text, jsonb, text, integer) IS
    'Puts a job in the queue, in this transaction, with the request''s context in its argument "context"; returns the job''s id.';

-- Why a part is left to chance: what failed together is not to come back together.
CREATE FUNCTION backend.retry_after(p_attempts integer) RETURNS interval
LANGUAGE sql VOLATILE SECURITY INVOKER
RETURN make_interval(secs => least(3600, 5 * 4 ^ (least(p_attempts, 10) - 1)) * (0.5 + random() / 2));
COMMENT ON FUNCTION backend.retry_after(integer) IS
    'How long to wait after so many attempts that failed: 5 s, 20 s, 80 s, … to an hour, and up to half less.';

COMMIT;
