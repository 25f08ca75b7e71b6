-- Deploy galaxy-backend:backend/queue_wake to pg
-- requires: backend/jobs

-- Why: Procrastinate notifies twice for each job, and a NOTIFY makes all writers queue for its lock through their fsync. While a
-- worker is awake and looks for jobs by itself, it holds a lock that says so, and nobody needs to notify.

BEGIN;
SET LOCAL ROLE backend_owner;

-- Why the lock is given back at once, not at the end of the transaction: overlapping writers would otherwise keep whom they wake
-- from ever taking it. An expression, which costs its callers no statement.
CREATE FUNCTION backend.is_asleep(p_awake_key bigint) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY INVOKER
RETURN CASE WHEN pg_try_advisory_lock_shared(p_awake_key) THEN pg_advisory_unlock_shared(p_awake_key) ELSE false END;
COMMENT ON FUNCTION backend.is_asleep(bigint) IS
    'Whether nobody holds the key: whoever does looks by himself, and need not be notified.';

CREATE FUNCTION backend.queue_awake_key() RETURNS bigint
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN x'6a1a0003'::bigint;
COMMENT ON FUNCTION backend.queue_awake_key() IS
    'Advisory lock: held exclusively by the worker that looks for new jobs, so that who defers them need not notify.';

CREATE FUNCTION backend.tg_procrastinate_jobs__wake() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    IF is_asleep(queue_awake_key()) THEN
        NOTIFY galaxy_queue_pending;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION backend.tg_procrastinate_jobs__wake() IS 'Wakes a worker for new jobs, if none is awake.';

ALTER TABLE procrastinate.procrastinate_jobs DISABLE TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1;
CREATE TRIGGER wake AFTER INSERT ON procrastinate.procrastinate_jobs
    FOR EACH STATEMENT EXECUTE FUNCTION backend.tg_procrastinate_jobs__wake();

-- Why once: such a job does whatever is waiting, so a second one of the same transaction would find nothing. The setting ends
-- with the transaction, and is undone with the savepoint that undoes the job.
CREATE FUNCTION backend.job_defer_once(p_queue text, p_task text, p_priority integer DEFAULT 0) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_setting text := 'backend.deferred_' || p_task;
BEGIN
    IF nullif(current_setting(v_setting, true), '')::integer >= p_priority THEN
        RETURN;
    END IF;
    PERFORM job_defer(p_queue, p_task, '{}', NULL, p_priority);
    PERFORM set_config(v_setting, p_priority::text, true);
END;
$$;
COMMENT ON FUNCTION backend.job_defer_once(text, text, integer) IS
    'Puts a job in the queue that does whatever is waiting, unless this transaction has done so with that priority or a higher one.';

COMMIT;
