-- Revert galaxy-backend:backend/jobs from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.retry_after(integer);
DROP FUNCTION backend.job_defer(text, text, jsonb, text, integer);
DROP FUNCTION backend.trace_span_id();
DROP FUNCTION backend.traceparent();
DROP FUNCTION backend.request_id();

COMMIT;
