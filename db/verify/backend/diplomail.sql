-- Verify galaxy-backend:backend/diplomail on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT message_id, game_id, kind, sender_user_id, sender_race_name, sender_deleted_at, recipients, language, subject, body
  FROM backend.diplomail_messages WHERE false;
SELECT message_id, language, status, subject, body, text_hash, attempts, next_attempt_at, lease_until, last_error FROM backend.diplomail_translations WHERE false;
SELECT message_id, user_id, game_id, race_name, language, delivered_at, read_at, deleted_at FROM backend.diplomail_recipients WHERE false;
SELECT broadcast_id, game_ids, written_count, subject, body, request_id, traceparent FROM backend.diplomail_broadcasts WHERE false;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'backend.language_primary(text)',
        'backend.diplomail_deliver(uuid, text)',
        'backend.diplomail_write(uuid, text, backend.accounts, text, text, uuid[])',
        'backend.diplomail_tell(uuid, text, uuid[])',
        'backend.diplomail_remove(uuid[])'
    ] LOOP
        ASSERT (SELECT NOT p.prosecdef AND p.proowner = 'backend_owner'::regrole FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a helper of the owner', v_signature);
    END LOOP;
    ASSERT to_regtype('backend.primary_language') IS NOT NULL, 'languages are of no type';
    ASSERT NOT EXISTS (SELECT FROM backend.invariants_diplomail), 'an invariant is violated';
END;
$$;

ROLLBACK;
