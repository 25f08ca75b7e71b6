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

CREATE FUNCTION backend.invites_page(p_list text, p_game_id uuid, p_user_id uuid, p_limit integer, p_before uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_items jsonb[];
    v_keys text[];
BEGIN
    SELECT array_agg(invite_json(r) ORDER BY r.invite_id DESC), array_agg(r.invite_id::text ORDER BY r.invite_id DESC) INTO v_items, v_keys
      FROM (SELECT i.* FROM invites AS i
             WHERE (i.game_id = p_game_id OR i.invited_user_id = p_user_id) AND (p_before IS NULL OR i.invite_id < p_before)
             ORDER BY i.invite_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(p_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION backend.invites_page(text, uuid, uuid, integer, uuid) IS
    'A page of the invites to a game, or for a person (the other is null), newest first.';

CREATE FUNCTION backend.invite_refusal(
    p_game backend.games, p_invite backend.invites, p_action text, p_actor_type text, p_actor_id text
) RETURNS backend.reason
LANGUAGE sql STABLE SECURITY INVOKER
RETURN backend.edge_refusal(
    'invite', p_action, backend.invite_json(p_invite) ->> 'status',
    CASE
        WHEN p_actor_type <> 'user' THEN p_actor_type
        -- Who invites themself is both.
        WHEN p_action = 'decline' AND p_invite.invited_user_id::text = p_actor_id THEN 'invitee'
        WHEN p_game.owner_user_id::text = p_actor_id THEN 'owner'
        WHEN p_invite.invited_user_id::text = p_actor_id THEN 'invitee'
    END,
    p_game.owner_user_id);
COMMENT ON FUNCTION backend.invite_refusal(backend.games, backend.invites, text, text, text) IS
    'Why somebody may not decline or revoke an invite now; null when they may.';

CREATE FUNCTION backend.invite_insert(p_game backend.games, p_inviter_user_id uuid, p_body jsonb, p_code text, p_code_hash bytea)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_invited_id uuid := (p_body ->> 'invited_user_id')::uuid;
    v_invite invites%ROWTYPE;
    v_membership_status text;
BEGIN
    IF p_game.status NOT IN ('draft', 'enrollment_open') THEN
        PERFORM fail(409, 'invalid_transition', format('A game that is %s does not allow invites.', p_game.status),
                     jsonb_build_object('from', p_game.status, 'action', 'invite', 'allowed', '[]'::jsonb));
    END IF;
    IF v_invited_id IS NOT NULL THEN
        -- The game is locked: of two who invite one person, the second finds the first one's invite.
        UPDATE invites SET status = 'expired'
         WHERE game_id = p_game.game_id AND invited_user_id = v_invited_id AND status = 'created' AND is_over(expires_at);
        SELECT m.status INTO v_membership_status FROM memberships AS m WHERE m.game_id = p_game.game_id AND m.user_id = v_invited_id;
        IF v_membership_status = 'active' THEN
            PERFORM fail(409, 'already_member', 'This person has a seat already.');
        ELSIF EXISTS (SELECT FROM invites AS i
                       WHERE i.game_id = p_game.game_id AND i.invited_user_id = v_invited_id AND i.status = 'created') THEN
            PERFORM fail(409, 'already_invited', 'This person has an invite already.');
        END IF;
    END IF;
    IF p_game.status = 'enrollment_open' AND is_over(p_game.enrollment_ends_at) THEN
        PERFORM fail(422, 'enrollment_ended', 'Enrolment is over.');
    ELSIF v_membership_status = 'blocked' THEN
        PERFORM fail(422, 'eligibility_denied', 'Somebody who was blocked in a game cannot come back to it.');
    ELSIF v_invited_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM accounts AS a WHERE a.user_id = v_invited_id AND a.deleted_at IS NULL AND NOT a.permanent_block
    ) THEN
        PERFORM fail(422, 'eligibility_denied', 'There is no such person to invite.');
    END IF;
    INSERT INTO invites (game_id, inviter_user_id, invited_user_id, code_hash, expires_at)
    VALUES (p_game.game_id, p_inviter_user_id, v_invited_id, CASE WHEN v_invited_id IS NULL THEN p_code_hash END,
            coalesce((p_body ->> 'expires_at')::timestamptz, backend.now() + setting_interval('invite_default_ttl')))
    RETURNING * INTO v_invite;
    IF v_invited_id IS NOT NULL THEN
        PERFORM notification_submit('lobby.invite.received', v_invite.invite_id::text, v_invited_id,
                                    jsonb_build_object('game_id', p_game.game_id, 'inviter_user_id', p_inviter_user_id));
    END IF;
    -- The code is shown here, once.
    RETURN invite_json(v_invite) || CASE WHEN v_invited_id IS NULL THEN jsonb_build_object('code', p_code) ELSE '{}' END;
END;
$$;
COMMENT ON FUNCTION backend.invite_insert(backend.games, uuid, jsonb, text, bytea) IS
    'A new invite, with its code if it is for nobody in particular; those concerned and then the game are locked by the caller. GX409 invalid_transition, already_member, already_invited, GX422 enrollment_ended, eligibility_denied.';

CREATE FUNCTION backend.invite_end(p_invite backend.invites, p_status text) RETURNS backend.invites
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_invite invites%ROWTYPE;
BEGIN
    UPDATE invites SET status = p_status WHERE invite_id = p_invite.invite_id RETURNING * INTO v_invite;
    IF p_status = 'revoked' AND v_invite.invited_user_id IS NOT NULL THEN
        PERFORM notification_submit('lobby.invite.revoked', 'revoked:' || v_invite.invite_id, v_invite.invited_user_id,
                                    jsonb_build_object('game_id', v_invite.game_id));
    END IF;
    RETURN v_invite;
END;
$$;
COMMENT ON FUNCTION backend.invite_end(backend.invites, text) IS
    'Declines or revokes an invite, and tells who was invited that it was taken back. It is locked by the caller, who asked invite_refusal.';

CREATE FUNCTION backend.invite_redeem(p_invite_id uuid, p_user_id uuid, p_race_name text) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_attempts invite_attempts%ROWTYPE;
    v_game games%ROWTYPE;
    v_invite invites%ROWTYPE;
    v_membership memberships%ROWTYPE;
BEGIN
    -- The person, the game, then the invite: of two with one code, the second finds it used; and one person's tries are counted
    -- one after another.
    PERFORM account_lock(p_user_id);
    SELECT * INTO v_attempts FROM invite_attempts AS t WHERE t.user_id = p_user_id AND NOT is_over(t.expires_at);
    IF v_attempts.failures >= setting('invite_attempts') THEN
        RETURN refusal(429, 'too_many_attempts', 'Too many invites that are not there.', jsonb_build_object(
            'retry_after', greatest(1, ceil(extract(epoch FROM v_attempts.expires_at - backend.now())))::integer));
    END IF;
    v_game := game_lock((SELECT i.game_id FROM invites AS i WHERE i.invite_id = p_invite_id));
    SELECT * INTO v_invite FROM invites WHERE invite_id = p_invite_id FOR NO KEY UPDATE;
    IF v_invite.invite_id IS NULL OR v_invite.status <> 'created' OR is_over(v_invite.expires_at) THEN
        INSERT INTO invite_attempts AS t (user_id, failures, expires_at)
        VALUES (p_user_id, 1, backend.now() + setting_interval('invite_attempts_window'))
        ON CONFLICT (user_id) DO UPDATE
            SET failures = CASE WHEN is_over(t.expires_at) THEN 1 ELSE t.failures + 1 END,
                expires_at = CASE WHEN is_over(t.expires_at) THEN excluded.expires_at ELSE t.expires_at END;
        RETURN refusal(404, 'invite_not_found', 'There is no such invite.');
    END IF;
    PERFORM sanction_refuse(p_user_id, 'game_join_block');
    IF v_game.status <> 'enrollment_open' THEN
        PERFORM fail(409, 'invalid_transition', format('A game that is %s does not allow redeem.', v_game.status),
                     jsonb_build_object('from', v_game.status, 'action', 'redeem', 'allowed', '[]'::jsonb));
    ELSIF EXISTS (SELECT FROM memberships AS m WHERE m.game_id = v_game.game_id AND m.user_id = p_user_id AND m.status = 'active') THEN
        PERFORM fail(409, 'already_member', 'There is a seat already.');
    ELSIF is_over(v_game.enrollment_ends_at) THEN
        PERFORM fail(422, 'enrollment_ended', 'Enrolment is over.');
    ELSIF EXISTS (SELECT FROM memberships AS m
                   WHERE m.game_id = v_game.game_id AND m.user_id = p_user_id AND m.status = 'removed'
                     AND m.ended_by IS DISTINCT FROM 'member' AND m.ended_id > v_invite.invite_id) THEN
        PERFORM fail(422, 'eligibility_denied', 'Somebody who was removed comes back with a new invite.');
    END IF;
    v_membership := seat_take(v_game, p_user_id, p_race_name);
    UPDATE invites SET status = 'redeemed', redeemed_by_user_id = p_user_id WHERE invite_id = p_invite_id;
    -- What they asked for they have.
    UPDATE applications SET status = 'withdrawn', decided_at = backend.now()
     WHERE game_id = v_game.game_id AND applicant_user_id = p_user_id AND status = 'submitted';
    RETURN ROW(200, membership_json(v_membership)::text, NULL)::api.reply;
END;
$$;
COMMENT ON FUNCTION backend.invite_redeem(uuid, uuid, text) IS
    'Takes a seat with an invite that somebody was found entitled to; one that is not there is counted. Returns 404 invite_not_found, 429 too_many_attempts. GX409 invalid_transition, GX422 enrollment_ended, eligibility_denied and what seat_take refuses.';

CREATE VIEW backend.invariants_invites AS
SELECT 'open_invite_of_a_game_that_is_closed' AS invariant, i.invite_id AS object_id, g.status AS details
  FROM backend.invites AS i JOIN backend.games AS g USING (game_id)
 WHERE i.status = 'created' AND g.status NOT IN ('draft', 'enrollment_open');
COMMENT ON VIEW backend.invariants_invites IS 'What must never be seen in invites.';

COMMIT;
