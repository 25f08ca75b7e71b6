-- Verify galaxy-backend:backend/race_name_rules on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT problem, race_name, user_id, other_race_name, other_user_id FROM backend.race_name_problems WHERE false;

DO $$
DECLARE
    v_signature text;
    v_ann uuid := (backend.account_create('telegram', 'verify-a', NULL, 'en', 'UTC', NULL)).user_id;
    v_bob uuid := (backend.account_create('telegram', 'verify-b', NULL, 'en', 'UTC', NULL)).user_id;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'backend.tg_memberships__store_canonical()',
        'backend.race_name_game_ids(uuid, text)',
        'backend.race_name_tier(backend.race_names)',
        'backend.race_name_is_expired(backend.race_names)',
        'backend.race_name_is_taken(uuid, text)',
        'backend.race_name_expire(uuid)',
        'backend.race_name_hold(text)',
        'backend.race_name_reserve(uuid, text)',
        'backend.race_name_release_unused(uuid, text)',
        'backend.race_names_settle(uuid, boolean)',
        'backend.race_names_expire(integer)',
        'backend.race_name_json(backend.race_names)',
        'backend.race_names_recompute()'
    ] LOOP
        ASSERT (SELECT NOT p.prosecdef AND p.proowner = 'backend_owner'::regrole FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a helper of the owner', v_signature);
    END LOOP;
    ASSERT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgname = 'store_canonical' AND t.tgrelid = 'backend.memberships'::regclass),
        'the canonical form of a seat can be written by hand';
    ASSERT NOT EXISTS (SELECT FROM backend.invariants_race_names), 'an invariant is violated';
    ASSERT backend.race_name_reserve(v_ann, ' Zorg  Verify ') = 'Zorg Verify', 'a name is not reserved';
    BEGIN
        PERFORM backend.race_name_reserve(v_bob, 'Z0RG-VERIFY');
        ASSERT false, 'one name has two holders';
    EXCEPTION WHEN SQLSTATE 'GX422' THEN
        NULL;
    END;
END;
$$;

ROLLBACK;
