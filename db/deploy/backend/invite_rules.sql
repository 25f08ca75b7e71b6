-- Deploy galaxy-backend:backend/invite_rules to pg
-- requires: backend/game_rules

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.invite_json(p_invite backend.invites) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'invite_id', p_invite.invite_id,
    'game_id', p_invite.game_id,
    'inviter_user_id', p_invite.inviter_user_id,
    'invited_user_id', p_invite.invited_user_id,
    -- One whose time is over is over, whether or not somebody has come by to write it down.
    'status', CASE WHEN p_invite.status = 'created' AND backend.is_over(p_invite.expires_at) THEN 'expired' ELSE p_invite.status END,
    'expires_at', backend.ts(p_invite.expires_at),
    'created_at', backend.ts(p_invite.created_at)
);
COMMENT ON FUNCTION backend.invite_json(backend.invites) IS 'The invite object of the contract; its code is never in it.';

CREATE FUNCTION backend.invite_redeem(p_invite_id uuid, p_user_id uuid, p_race_name text) RETURNS backend.memberships
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_invite invites%ROWTYPE;
    v_membership memberships%ROWTYPE;
BEGIN
    -- The person, the game, then the invite: of two with one code, the second finds it used.
    PERFORM account_lock(p_user_id);
    v_game := game_lock((SELECT i.game_id FROM invites AS i WHERE i.invite_id = p_invite_id));
    SELECT * INTO v_invite FROM invites WHERE invite_id = p_invite_id FOR NO KEY UPDATE;
    IF v_invite.invite_id IS NULL OR v_invite.status <> 'created' OR is_over(v_invite.expires_at) THEN
        PERFORM fail(404, 'invite_not_found', 'There is no such invite.');
    END IF;
    PERFORM sanction_refuse(p_user_id, 'game_join_block');
    IF v_game.status <> 'enrollment_open' THEN
        PERFORM fail(409, 'invalid_transition', format('A game that is %s does not allow redeem.', v_game.status),
                     jsonb_build_object('from', v_game.status, 'action', 'redeem', 'allowed', '[]'::jsonb));
    ELSIF is_over(v_game.enrollment_ends_at) THEN
        PERFORM fail(422, 'enrollment_ended', 'Enrolment is over.');
    END IF;
    v_membership := seat_take(v_game, p_user_id, p_race_name);
    UPDATE invites SET status = 'redeemed', redeemed_by_user_id = p_user_id WHERE invite_id = p_invite_id;
    RETURN v_membership;
END;
$$;
COMMENT ON FUNCTION backend.invite_redeem(uuid, uuid, text) IS
    'Takes a seat with an invite that somebody was found entitled to. GX404 invite_not_found, GX409 invalid_transition, GX422 enrollment_ended and what seat_take refuses.';

CREATE VIEW backend.invariants_invites AS
SELECT 'open_invite_of_a_game_that_is_closed' AS invariant, i.invite_id AS object_id, g.status AS details
  FROM backend.invites AS i JOIN backend.games AS g USING (game_id)
 WHERE i.status = 'created' AND g.status NOT IN ('draft', 'enrollment_open');
COMMENT ON VIEW backend.invariants_invites IS 'What must never be seen in invites.';

COMMIT;
