-- Verify galaxy-backend:backend/diplomail_rules on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'backend.diplomail_text_refuse(jsonb)',
        'backend.diplomail_readers(uuid, uuid, jsonb)',
        'backend.diplomail_send(uuid, text, backend.accounts, jsonb)',
        'backend.diplomail_json(backend.diplomail_messages, text, timestamptz)',
        'backend.diplomail_game_find(uuid, uuid)'
    ] LOOP
        ASSERT (SELECT NOT p.prosecdef AND p.proowner = 'backend_owner'::regrole FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a helper of the owner', v_signature);
    END LOOP;
END;
$$;

ROLLBACK;
