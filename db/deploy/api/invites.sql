-- Deploy galaxy-backend:api/invites to pg
-- requires: backend/invite_rules
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.invite_create(p_user_id uuid, p_game_id uuid, p_body jsonb, p_code text, p_code_hash bytea) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_invited_id uuid := (p_body ->> 'invited_user_id')::uuid;
    v_expires_at timestamptz := coalesce((p_body ->> 'expires_at')::timestamptz, backend.now() + setting_interval('invite_default_ttl'));
    v_game games%ROWTYPE;
    v_invite invites%ROWTYPE;
    v_membership_status text;
BEGIN
    PERFORM account_require(p_user_id);
    IF is_over(v_expires_at) THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.', '[{"path": "expires_at", "problem": "is not in the future"}]');
    END IF;
    -- Neither account is closed meanwhile: what it releases it looks for once.
    PERFORM FROM accounts AS a WHERE a.user_id IN (p_user_id, v_invited_id) ORDER BY a.user_id FOR SHARE;
    PERFORM account_require(p_user_id);
    v_game := game_lock(p_game_id);
    IF v_game.game_id IS NULL OR NOT game_is_visible(v_game, p_user_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    ELSIF v_game.owner_user_id IS DISTINCT FROM p_user_id THEN
        PERFORM fail(403, 'forbidden', 'Only those who run this game may do that.');
    END IF;
    PERFORM sanction_refuse(p_user_id, 'private_game_manage_block');
    IF v_game.status NOT IN ('draft', 'enrollment_open') THEN
        PERFORM fail(409, 'invalid_transition', format('A game that is %s does not allow invites.', v_game.status),
                     jsonb_build_object('from', v_game.status, 'action', 'invite', 'allowed', '[]'::jsonb));
    END IF;
    IF v_invited_id IS NOT NULL THEN
        -- The game is locked: of two who invite one person, the second finds the first one's invite.
        UPDATE invites SET status = 'expired'
         WHERE game_id = p_game_id AND invited_user_id = v_invited_id AND status = 'created' AND is_over(expires_at);
        SELECT m.status INTO v_membership_status FROM memberships AS m WHERE m.game_id = p_game_id AND m.user_id = v_invited_id;
        IF v_membership_status = 'active' THEN
            PERFORM fail(409, 'already_member', 'This person has a seat already.');
        ELSIF EXISTS (SELECT FROM invites AS i
                       WHERE i.game_id = p_game_id AND i.invited_user_id = v_invited_id AND i.status = 'created') THEN
            PERFORM fail(409, 'already_invited', 'This person has an invite already.');
        END IF;
    END IF;
    IF v_game.status = 'enrollment_open' AND is_over(v_game.enrollment_ends_at) THEN
        PERFORM fail(422, 'enrollment_ended', 'Enrolment is over.');
    ELSIF v_membership_status = 'blocked' THEN
        PERFORM fail(422, 'eligibility_denied', 'Somebody who was blocked in a game cannot come back to it.');
    ELSIF v_invited_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM accounts AS a WHERE a.user_id = v_invited_id AND a.deleted_at IS NULL AND NOT a.permanent_block
    ) THEN
        PERFORM fail(422, 'eligibility_denied', 'There is no such person to invite.');
    END IF;
    INSERT INTO invites (game_id, inviter_user_id, invited_user_id, code_hash, expires_at)
    VALUES (p_game_id, p_user_id, v_invited_id, CASE WHEN v_invited_id IS NULL THEN p_code_hash END, v_expires_at)
    RETURNING * INTO v_invite;
    IF v_invited_id IS NOT NULL THEN
        PERFORM notification_submit('lobby.invite.received', v_invite.invite_id::text, v_invited_id,
                                    jsonb_build_object('game_id', p_game_id, 'inviter_user_id', p_user_id));
    END IF;
    -- The code is shown here, once.
    RETURN ROW(
        201,
        (invite_json(v_invite) || CASE WHEN v_invited_id IS NULL THEN jsonb_build_object('code', p_code) ELSE '{}' END)::text,
        format('/api/v1/user/lobby/games/%s/invites/%s', p_game_id, v_invite.invite_id)
    )::api.reply;
END;
$$;
COMMENT ON FUNCTION api.invite_create(uuid, uuid, jsonb, text, bytea) IS
    'Offers a seat in the caller''s private game to a person, or to whoever has the code of the answer. GX400 invalid_request, GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, GX409 invalid_transition, already_member, already_invited, GX422 enrollment_ended, eligibility_denied.';

CREATE FUNCTION api.invite_list(p_user_id uuid, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_list text := 'invite_list:' || p_game_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM account_require(p_user_id);
    v_game := game_find(p_game_id, p_user_id);
    IF v_game.owner_user_id IS DISTINCT FROM p_user_id THEN
        PERFORM fail(403, 'forbidden', 'Only those who run this game may do that.');
    END IF;
    SELECT array_agg(invite_json(r) ORDER BY r.invite_id DESC), array_agg(r.invite_id::text ORDER BY r.invite_id DESC) INTO v_items, v_keys
      FROM (SELECT i.* FROM invites AS i
             WHERE i.game_id = p_game_id AND (v_before IS NULL OR i.invite_id < v_before)
             ORDER BY i.invite_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.invite_list(uuid, uuid, integer, text) IS
    'The invites of the caller''s game, newest first. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found.';

CREATE FUNCTION api.invite_redeem(p_user_id uuid, p_game_id uuid, p_invite_id uuid, p_body jsonb, p_code_hash bytea) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_invite_id uuid;
BEGIN
    PERFORM account_require(p_user_id);
    SELECT i.invite_id INTO v_invite_id FROM invites AS i
     WHERE i.invite_id = p_invite_id AND i.game_id = p_game_id
       AND (i.invited_user_id = p_user_id OR i.code_hash = p_code_hash
            OR (i.inviter_user_id = p_user_id AND i.code_hash IS NOT NULL));
    RETURN membership_json(invite_redeem(v_invite_id, p_user_id, p_body ->> 'race_name'))::text;
END;
$$;
COMMENT ON FUNCTION api.invite_redeem(uuid, uuid, uuid, jsonb, bytea) IS
    'Takes a seat with an invite: the person''s own, one whose code they have, or one of their own making. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, invite_not_found, GX409 invalid_transition, already_member, GX422 enrollment_ended, eligibility_denied, limit_reached, game_full, invalid_name, name_taken.';

CREATE FUNCTION api.invite_redeem_by_code(p_user_id uuid, p_body jsonb, p_code_hash bytea) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_invite_id uuid;
BEGIN
    PERFORM account_require(p_user_id);
    SELECT i.invite_id INTO v_invite_id FROM invites AS i WHERE i.code_hash = p_code_hash;
    RETURN membership_json(invite_redeem(v_invite_id, p_user_id, p_body ->> 'race_name'))::text;
END;
$$;
COMMENT ON FUNCTION api.invite_redeem_by_code(uuid, jsonb, bytea) IS
    'Takes a seat with a code alone. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, invite_not_found, GX409 invalid_transition, already_member, GX422 enrollment_ended, eligibility_denied, limit_reached, game_full, invalid_name, name_taken.';

COMMIT;
