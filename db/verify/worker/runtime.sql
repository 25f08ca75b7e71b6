-- Verify galaxy-backend:worker/runtime on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'worker.runtime_start_claim(uuid, integer)',
        'worker.runtime_started(uuid, bigint, text, text, integer, jsonb)',
        'worker.runtime_start_failed(uuid, bigint, text, text)',
        'worker.turns_defer(integer)',
        'worker.turn_claim(uuid, integer)',
        'worker.turn_report(uuid, bigint, integer, boolean, jsonb)',
        'worker.turn_failed(uuid, bigint, text, text, boolean, boolean)',
        'worker.runtimes_unsettled_defer(integer)',
        'worker.runtime_remove_claim(uuid, integer)',
        'worker.runtime_removed(uuid, bigint)',
        'worker.banish_claim(uuid, integer)',
        'worker.banish_report(uuid, bigint, text[], text)',
        'worker.banishes_defer(integer)',
        'worker.runtimes_list(uuid)',
        'worker.runtime_is_wanted(uuid, integer)',
        'worker.runtime_moved(uuid, bigint, text, text)',
        'worker.runtime_observed(uuid, integer, text, text)',
        'worker.runtime_unwell(uuid, integer, text, text, double precision)',
        'worker.runtime_was_started(uuid, integer)',
        'worker.runtime_lease_renew(uuid, bigint, integer)',
        'worker.runtime_logs_defer(integer)',
        'worker.runtime_logs_store(uuid, text, text)',
        'worker.finished_engines_unwant(integer)',
        'worker.runtime_health_purge(integer)',
        'worker.runtime_operations_purge(integer)'
    ] LOOP
        ASSERT (SELECT p.prosecdef AND p.proowner = 'backend_owner'::regrole
                       AND p.proconfig[1] ~ '^search_path=backend, (procrastinate, )?pg_catalog, pg_temp$'
                  FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a function of a door', v_signature);
        ASSERT has_function_privilege('backend_worker', v_signature, 'EXECUTE'), format('backend_worker cannot execute %s', v_signature);
    END LOOP;
END;
$$;

ROLLBACK;
