-- Verify galaxy-backend:backend/account_moderation on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'backend.account_moderate(uuid)',
        'backend.url_segment(text)',
        'backend.blocked_email_json(backend.blocked_emails)',
        'backend.entitlement_tier_json(backend.entitlement_tiers)',
        'backend.entitlement_record_json(backend.entitlement_records)',
        'backend.sanction_record_json(backend.sanction_records)',
        'backend.limit_record_json(backend.limit_records)',
        'backend.entitlement_end(text, timestamptz)',
        'backend.entitlement_grant(uuid, text, text, text, timestamptz, timestamptz)',
        'backend.sanction_apply(uuid, text, text, text, timestamptz)',
        'backend.sanction_lift(uuid, text, text, text)',
        'backend.limit_apply(uuid, text, integer, text, text, timestamptz)',
        'backend.limit_clear(uuid, text, text, text)'
    ] LOOP
        ASSERT (SELECT NOT p.prosecdef AND p.proowner = 'backend_owner'::regrole FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a helper of the owner', v_signature);
    END LOOP;
END;
$$;

ROLLBACK;
