-- Verify galaxy-backend:push/stream on pg

BEGIN;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'push.sequencer_wake()',
        'push.sequencer_sleep()',
        'push.events_sequence(integer)',
        'push.events_read(bigint, integer)',
        'push.cursor_resume(text)',
        'push.subscriber_claim(text, uuid, uuid)',
        'push.subscriber_release(text, uuid)',
        'push.subscribers_newest(text[])',
        'push.streamer_beat()'
    ] LOOP
        ASSERT (SELECT p.prosecdef AND p.proowner = 'backend_owner'::regrole
                       AND p.proconfig[1] ~ '^search_path=backend, (procrastinate, )?pg_catalog, pg_temp$'
                  FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a function of a door', v_signature);
        ASSERT has_function_privilege('backend_push', v_signature, 'EXECUTE'), format('backend_push cannot execute %s', v_signature);
    END LOOP;
END;
$$;

ROLLBACK;
