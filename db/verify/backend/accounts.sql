-- Verify galaxy-backend:backend/accounts on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT user_id, user_name, email, email_hash, display_name, preferred_language, time_zone, declared_country, permanent_block,
       deleted_at, created_at, updated_at FROM backend.accounts WHERE false;
SELECT user_id, tier, starts_at, ends_at, changes_at FROM backend.entitlement_snapshots WHERE false;
SELECT user_id, code, sanction_record_id, reason, expires_at FROM backend.sanction_active WHERE false;
SELECT user_id, code, limit_record_id, value, expires_at FROM backend.limit_active WHERE false;
SELECT provider, subject, user_id FROM backend.identities WHERE false;

DO $$
DECLARE
    v_account backend.accounts%ROWTYPE;
BEGIN
    ASSERT EXISTS (SELECT FROM backend.time_zones WHERE time_zone = 'Europe/Berlin'), 'time zones are missing';
    ASSERT (SELECT count(*) >= 4 FROM backend.entitlement_tiers), 'tiers are missing';
    ASSERT backend.user_name_random() ~ '^player-[0-9a-hjkmnp-tv-z]{8}$', 'user names have another form';
    v_account := backend.account_create('telegram', 'verify', NULL, 'en', 'UTC', NULL);
    ASSERT backend.account_json(v_account) -> 'entitlement' ->> 'tier' = 'free', 'a new account is not free';
    ASSERT (backend.account_require(v_account.user_id)).user_id = v_account.user_id, 'an account cannot be found';
    PERFORM FROM backend.invariants_accounts;
    PERFORM 'backend.entitlement_records'::regclass;
    PERFORM 'backend.sanction_code'::regtype;
    PERFORM 'backend.sanction_records'::regclass;
    PERFORM 'backend.limit_code'::regtype;
    PERFORM 'backend.limit_records'::regclass;
    PERFORM 'backend.is_over(timestamptz)'::regprocedure;
    PERFORM 'backend.moment_to_come(jsonb, text)'::regprocedure;
    PERFORM 'backend.is_sanctioned(uuid, text)'::regprocedure;
    PERFORM 'backend.block_refuse(backend.accounts)'::regprocedure;
    PERFORM 'backend.identity_lock(text, text)'::regprocedure;
    PERFORM 'backend.account_find(text, text)'::regprocedure;
    PERFORM 'backend.entitlement_settle(uuid)'::regprocedure;
    ASSERT (backend.entitlement_in_force(v_account.user_id)).tier = 'free', 'nothing is in force';
    ASSERT backend.account_internal_json(v_account) ? 'deleted_at', 'an account is not shown in full';
    ASSERT NOT backend.is_seen(E' \u3164'), 'what is not seen is taken for text';
    ASSERT backend.display_name_clean(E' \u0061\u0308 ') = 'ä', 'a name is not kept in NFC';
    ASSERT backend.display_name_clean(E'\u202e') IS NULL, 'a name turns the direction';
END;
$$;

ROLLBACK;
