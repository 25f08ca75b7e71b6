-- Verify galaxy-backend:backend/invite_rules on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'backend.invite_json(backend.invites)',
        'backend.invites_page(text, uuid, uuid, integer, uuid)',
        'backend.invite_refusal(backend.games, backend.invites, text, text, text)',
        'backend.invite_insert(backend.games, uuid, jsonb, text, bytea)',
        'backend.invite_end(backend.invites, text)',
        'backend.invite_redeem(uuid, uuid, text)'
    ] LOOP
        ASSERT (SELECT NOT p.prosecdef AND p.proowner = 'backend_owner'::regrole FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a helper of the owner', v_signature);
    END LOOP;
    ASSERT NOT EXISTS (SELECT FROM backend.invariants_invites), 'an invariant is violated';
END;
$$;

ROLLBACK;
