-- Deploy galaxy-backend:worker/jobs to pg
-- requires: backend/queue_wake

-- Why: Procrastinate leaves two things to us: the jobs of a worker that died, which stay "doing" for ever, and those that are
-- done with. Its times are the server's own, so these functions do not ask backend.now().

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION worker.jobs_rescue(p_seconds integer) RETURNS TABLE (job_id bigint, task_name text, is_given_up boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_job procrastinate_jobs%ROWTYPE;
BEGIN
    FOR v_job IN
        SELECT j.* FROM procrastinate_jobs AS j
         WHERE j.status = 'doing'
           AND NOT EXISTS (SELECT FROM procrastinate_workers AS w
                            WHERE w.id = j.worker_id
                              AND w.last_heartbeat > transaction_timestamp() - make_interval(secs => p_seconds))
         ORDER BY j.id
           FOR NO KEY UPDATE OF j SKIP LOCKED
    LOOP
        -- Locked, and looked at again with fresh eyes: another rescuer may have given it to a worker that we did not see yet.
        CONTINUE WHEN NOT EXISTS (
            SELECT FROM procrastinate_jobs AS j
             WHERE j.id = v_job.id AND j.status = 'doing'
               AND NOT EXISTS (SELECT FROM procrastinate_workers AS w
                                WHERE w.id = j.worker_id
                                  AND w.last_heartbeat > transaction_timestamp() - make_interval(secs => p_seconds)));
        job_id := v_job.id;
        task_name := v_job.task_name;
        -- What has taken a worker with it so often is not tried for ever; the sweeps still find what it was about.
        is_given_up := v_job.attempts >= 10;
        IF is_given_up THEN
            PERFORM procrastinate_finish_job_v1(v_job.id, 'failed', false);
        ELSE
            PERFORM procrastinate_retry_job_v2(v_job.id, transaction_timestamp(), NULL, NULL, NULL);
        END IF;
        RETURN NEXT;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION worker.jobs_rescue(integer) IS
    'Puts the jobs of workers that have not been heard of for so many seconds back in the queue; one that was tried ten times fails. Raises nothing of its own.';

CREATE FUNCTION worker.jobs_purge(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM procrastinate_jobs AS j
     -- Picked once: as a part of the condition it might be asked more than once, and pick more.
     WHERE j.id = ANY (ARRAY(
         SELECT o.id FROM procrastinate_jobs AS o
          WHERE o.status IN ('succeeded', 'failed', 'cancelled', 'aborted')
            AND NOT EXISTS (SELECT FROM procrastinate_events AS e
                             WHERE e.job_id = o.id AND e.at > transaction_timestamp() - interval '1 day')
            AND NOT EXISTS (SELECT FROM procrastinate_periodic_defers AS d WHERE d.job_id = o.id)
          ORDER BY o.id LIMIT p_limit
            FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION worker.jobs_purge(integer) IS
    'Deletes at most so many jobs that ended over a day ago; returns how many. Raises nothing of its own.';

CREATE FUNCTION worker.queue_wake() RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pg_try_advisory_lock(queue_awake_key());
END;
$$;
COMMENT ON FUNCTION worker.queue_wake() IS
    'Makes this connection the one that looks for new jobs, so that who defers them need not notify; false where another one is. Raises nothing of its own.';

CREATE FUNCTION worker.queue_sleep() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_unlock(queue_awake_key());
END;
$$;
COMMENT ON FUNCTION worker.queue_sleep() IS
    'From now on who defers a job notifies again. Announce once more after it, before sleeping. Raises nothing of its own.';

-- Why the numbers are compared and not only the newest: a job that commits late has a lower number than others before it.
CREATE FUNCTION worker.queue_announce(p_seen jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_waiting jsonb;
    v_queue text;
BEGIN
    SELECT coalesce(jsonb_object_agg(q.queue_name, jsonb_build_array(q.newest, q.count)), '{}') INTO v_waiting
      FROM (SELECT j.queue_name, max(j.id) AS newest, count(*) AS count
              FROM procrastinate_jobs AS j WHERE j.status = 'todo' GROUP BY j.queue_name) AS q;
    FOR v_queue IN SELECT w.queue FROM jsonb_each(v_waiting) AS w (queue, seen) WHERE w.seen IS DISTINCT FROM p_seen -> w.queue LOOP
        -- What Procrastinate's workers listen to.
        PERFORM pg_notify('procrastinate_queue_v1#' || v_queue, '{"type": "job_inserted"}');
    END LOOP;
    RETURN v_waiting;
END;
$$;
COMMENT ON FUNCTION worker.queue_announce(jsonb) IS
    'Notifies the workers of each queue whose waiting jobs are others than those seen; returns the newest and the number of each queue''s, to be seen next time. Raises nothing of its own.';

COMMIT;
