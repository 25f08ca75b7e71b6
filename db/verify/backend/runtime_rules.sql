-- Verify galaxy-backend:backend/runtime_rules on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'backend.runtime_held(uuid, bigint)',
        'backend.runtime_operation_end(uuid, bigint, text, text)',
        'backend.runtime_operation_begin(backend.runtime_records, text)',
        'backend.runtime_operation_done(backend.runtime_records, text, text)',
        'backend.runtime_failure_tell(backend.runtime_records, text, text)',
        'backend.runtime_health_note(uuid, boolean, text)',
        'backend.runtime_restart(uuid, text, text)',
        'backend.runtime_snapshot(uuid, integer, jsonb, bigint)',
        'backend.runtime_queue_require()',
        'backend.runtime_of_running_game(backend.games)',
        'backend.runtime_logs_json(backend.runtime_logs)',
        'backend.runtime_json(backend.runtime_records)'
    ] LOOP
        ASSERT (SELECT NOT p.prosecdef AND p.proowner = 'backend_owner'::regrole FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a helper of the owner', v_signature);
    END LOOP;
END;
$$;

ROLLBACK;
