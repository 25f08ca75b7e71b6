-- Verify galaxy-backend:worker/metrics on pg

BEGIN;

DO $$
BEGIN
    ASSERT (SELECT p.prosecdef AND p.proowner = 'backend_owner'::regrole
                   AND p.proconfig[1] = 'search_path=backend, procrastinate, pg_catalog, pg_temp'
              FROM pg_proc AS p WHERE p.oid = 'worker.metrics_read(integer)'::regprocedure),
        'worker.metrics_read(integer) is not a function of a door';
    ASSERT has_function_privilege('backend_worker', 'worker.metrics_read(integer)', 'EXECUTE'),
        'backend_worker cannot execute worker.metrics_read(integer)';
END;
$$;

ROLLBACK;
