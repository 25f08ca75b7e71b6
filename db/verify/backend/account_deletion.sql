-- Verify galaxy-backend:backend/account_deletion on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'backend.ways_in_lock(uuid)',
        'backend.code_mails(text[])',
        'backend.mail_forget(uuid, uuid[])',
        'backend.account_delete(uuid)'
    ] LOOP
        ASSERT (SELECT NOT p.prosecdef AND p.proowner = 'backend_owner'::regrole FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a helper of the owner', v_signature);
    END LOOP;
    ASSERT (SELECT count(*) >= 30 FROM backend.deletion_rules WHERE rule IN ('keep', 'delete', 'erase', 'hash', 'release')), 'rules are missing';
END;
$$;

ROLLBACK;
