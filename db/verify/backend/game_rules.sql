-- Verify galaxy-backend:backend/game_rules on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_signature text;
BEGIN
    FOREACH v_signature IN ARRAY ARRAY[
        'backend.refuse(backend.reason)',
        'backend.account_limit(uuid, text)',
        'backend.account_lock(uuid)',
        'backend.sanction_refuse(uuid, text)',
        'backend.game_member_count(uuid)',
        'backend.game_json(backend.games)',
        'backend.game_from_body(backend.games, jsonb)',
        'backend.game_insert(backend.games, text, uuid, text, text)',
        'backend.game_edit(backend.games, jsonb)',
        'backend.games_newest(text, text[], uuid, text, uuid, integer)',
        'backend.game_is_visible(backend.games, uuid)',
        'backend.game_find(uuid, uuid)',
        'backend.game_lock(uuid)',
        'backend.edge_refusal(text, text, text, text, uuid)',
        'backend.game_refusal(backend.games, text, text, text)',
        'backend.game_actions(backend.games, text, text)',
        'backend.game_history_page(text, uuid, integer, uuid, boolean)',
        'backend.game_notify(uuid, text, text, jsonb)',
        'backend.runtime_want(backend.games)',
        'backend.runtime_unwant(uuid)',
        'backend.game_transition(backend.games, text, text, text, text)',
        'backend.game_command(uuid, text, uuid, text)',
        'backend.game_command_by_admin(text, text, uuid, text, text)',
        'backend.membership_json(backend.memberships)',
        'backend.memberships_page(text, uuid, integer, uuid)',
        'backend.seat_take(backend.games, uuid, text)',
        'backend.membership_actor(backend.games, backend.memberships, text, text, text)',
        'backend.membership_refusal(backend.games, backend.memberships, text, text, text)',
        'backend.membership_end(backend.games, backend.memberships, text, text)',
        'backend.seat_is_played(backend.memberships)'
    ] LOOP
        ASSERT (SELECT NOT p.prosecdef AND p.proowner = 'backend_owner'::regrole FROM pg_proc AS p WHERE p.oid = v_signature::regprocedure),
            format('%s is not a helper of the owner', v_signature);
    END LOOP;
    ASSERT NOT EXISTS (SELECT FROM backend.invariants_games), 'an invariant is violated';
    PERFORM 'backend.reason'::regtype;
END;
$$;

ROLLBACK;
