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
    v_game games%ROWTYPE;
    v_invite jsonb;
BEGIN
    PERFORM account_require(p_user_id);
    PERFORM moment_to_come(p_body, 'expires_at');
    -- Neither account is closed meanwhile: what it releases it looks for once.
    PERFORM FROM accounts AS a WHERE a.user_id IN (p_user_id, (p_body ->> 'invited_user_id')::uuid) ORDER BY a.user_id FOR SHARE;
    PERFORM account_require(p_user_id);
    v_game := game_lock(p_game_id);
    IF v_game.game_id IS NULL OR NOT game_is_visible(v_game, p_user_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    ELSIF v_game.owner_user_id IS DISTINCT FROM p_user_id THEN
        PERFORM fail(403, 'forbidden', 'Only those who run this game may do that.');
    END IF;
    PERFORM sanction_refuse(p_user_id, 'private_game_manage_block');
    v_invite := invite_insert(v_game, p_user_id, p_body, p_code, p_code_hash);
    RETURN ROW(201, v_invite::text, format('/api/v1/user/lobby/games/%s/invites/%s', p_game_id, v_invite ->> 'invite_id'))::api.reply;
END;
$$;
COMMENT ON FUNCTION api.invite_create(uuid, uuid, jsonb, text, bytea) IS
    'Offers a seat in the caller''s game to a person, or to whoever has the code of the answer. GX400 invalid_request, GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, GX409 invalid_transition, already_member, already_invited, GX422 enrollment_ended, eligibility_denied.';

CREATE FUNCTION api.invite_list(p_user_id uuid, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_list text := 'invite_list:' || p_game_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
BEGIN
    PERFORM account_require(p_user_id);
    v_game := game_find(p_game_id, p_user_id);
    IF v_game.owner_user_id IS DISTINCT FROM p_user_id THEN
        PERFORM fail(403, 'forbidden', 'Only those who run this game may do that.');
    END IF;
    RETURN invites_page(v_list, p_game_id, NULL, p_limit, v_before);
END;
$$;
COMMENT ON FUNCTION api.invite_list(uuid, uuid, integer, text) IS
    'The invites of the caller''s game, newest first. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found.';

CREATE FUNCTION api.invite_get(p_user_id uuid, p_game_id uuid, p_invite_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_invite invites%ROWTYPE;
BEGIN
    PERFORM account_require(p_user_id);
    SELECT i.* INTO v_invite FROM invites AS i JOIN games AS g USING (game_id)
     WHERE i.invite_id = p_invite_id AND i.game_id = p_game_id AND p_user_id IN (i.invited_user_id, g.owner_user_id);
    IF NOT FOUND THEN
        PERFORM fail(404, 'invite_not_found', 'There is no such invite.');
    END IF;
    RETURN invite_json(v_invite)::text;
END;
$$;
COMMENT ON FUNCTION api.invite_get(uuid, uuid, uuid) IS
    'An invite, for the game''s owner and who is invited. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, invite_not_found.';

CREATE FUNCTION api.my_invite_list(p_user_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'my_invite_list:' || p_user_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
BEGIN
    PERFORM account_require(p_user_id);
    RETURN invites_page(v_list, NULL, p_user_id, p_limit, v_before);
END;
$$;
COMMENT ON FUNCTION api.my_invite_list(uuid, integer, text) IS
    'The invites for the caller, newest first. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

CREATE FUNCTION api.invite_redeem(p_user_id uuid, p_game_id uuid, p_invite_id uuid, p_body jsonb, p_code_hash bytea) RETURNS api.reply
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
    RETURN invite_redeem(v_invite_id, p_user_id, p_body ->> 'race_name');
END;
$$;
COMMENT ON FUNCTION api.invite_redeem(uuid, uuid, uuid, jsonb, bytea) IS
    'Takes a seat with an invite: the person''s own, one whose code they have, or one of their own making. Returns 404 invite_not_found, 429 too_many_attempts. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, GX409 invalid_transition, already_member, GX422 enrollment_ended, eligibility_denied, limit_reached, game_full, invalid_name, name_taken.';

CREATE FUNCTION api.invite_redeem_by_code(p_user_id uuid, p_body jsonb, p_code_hash bytea) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_invite_id uuid;
BEGIN
    PERFORM account_require(p_user_id);
    SELECT i.invite_id INTO v_invite_id FROM invites AS i WHERE i.code_hash = p_code_hash;
    RETURN invite_redeem(v_invite_id, p_user_id, p_body ->> 'race_name');
END;
$$;
COMMENT ON FUNCTION api.invite_redeem_by_code(uuid, jsonb, bytea) IS
    'Takes a seat with a code alone. Returns 404 invite_not_found, 429 too_many_attempts. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, GX409 invalid_transition, already_member, GX422 enrollment_ended, eligibility_denied, limit_reached, game_full, invalid_name, name_taken.';

CREATE FUNCTION api.invite_decline(p_user_id uuid, p_game_id uuid, p_invite_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_invite invites%ROWTYPE;
BEGIN
    PERFORM account_require(p_user_id);
    v_game := game_lock(p_game_id);
    -- Who declined it sees their invite, if no longer the game.
    SELECT * INTO v_invite FROM invites AS i
     WHERE i.invite_id = p_invite_id AND i.game_id = p_game_id AND p_user_id IN (i.invited_user_id, v_game.owner_user_id)
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'invite_not_found', 'There is no such invite.');
    END IF;
    PERFORM refuse(invite_refusal(v_game, v_invite, 'decline', 'user', p_user_id::text));
    RETURN invite_json(invite_end(v_invite, 'declined'))::text;
END;
$$;
COMMENT ON FUNCTION api.invite_decline(uuid, uuid, uuid) IS
    'Declines an invite for the caller. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, invite_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.invite_revoke(p_user_id uuid, p_game_id uuid, p_invite_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_invite invites%ROWTYPE;
BEGIN
    PERFORM account_require(p_user_id);
    v_game := game_lock(p_game_id);
    -- Who declined it sees their invite, if no longer the game.
    SELECT * INTO v_invite FROM invites AS i
     WHERE i.invite_id = p_invite_id AND i.game_id = p_game_id AND p_user_id IN (i.invited_user_id, v_game.owner_user_id)
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'invite_not_found', 'There is no such invite.');
    END IF;
    PERFORM refuse(invite_refusal(v_game, v_invite, 'revoke', 'user', p_user_id::text));
    RETURN invite_json(invite_end(v_invite, 'revoked'))::text;
END;
$$;
COMMENT ON FUNCTION api.invite_revoke(uuid, uuid, uuid) IS
    'Takes back an invite to the caller''s game. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, invite_not_found, GX409 invalid_transition.';

COMMIT;
