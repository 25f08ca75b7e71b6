-- Deploy galaxy-backend:api/memberships to pg
-- requires: backend/game_rules
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.membership_list(p_user_id uuid, p_game_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_list text := 'membership_list:' || p_game_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
BEGIN
    PERFORM account_require(p_user_id);
    v_game := game_find(p_game_id, p_user_id);
    IF v_game.visibility = 'private' AND v_game.owner_user_id <> p_user_id AND NOT EXISTS (
        SELECT FROM memberships AS m WHERE m.game_id = p_game_id AND m.user_id = p_user_id AND m.status = 'active'
    ) THEN
        PERFORM fail(403, 'forbidden', 'Only its members see who sits in a private game.');
    END IF;
    RETURN memberships_page(v_list, p_game_id, p_limit, v_before);
END;
$$;
COMMENT ON FUNCTION api.membership_list(uuid, uuid, integer, text) IS
    'Who sits, or sat, in a game that the caller may see, newest first. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found.';

CREATE FUNCTION api.membership_remove(p_user_id uuid, p_game_id uuid, p_membership_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_membership memberships%ROWTYPE;
BEGIN
    PERFORM account_require(p_user_id);
    v_game := game_lock(p_game_id);
    IF v_game.game_id IS NULL OR NOT game_is_visible(v_game, p_user_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    SELECT * INTO v_membership FROM memberships WHERE membership_id = p_membership_id AND game_id = p_game_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'membership_not_found', 'There is no such seat.');
    END IF;
    PERFORM refuse(membership_refusal(v_game, v_membership, 'remove', 'user', p_user_id::text));
    RETURN membership_json(membership_end(
        v_game, v_membership, 'removed', membership_actor(v_game, v_membership, 'remove', 'user', p_user_id::text)))::text;
END;
$$;
COMMENT ON FUNCTION api.membership_remove(uuid, uuid, uuid) IS
    'Removes a member from the caller''s game, or the caller from a game. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, membership_not_found, GX409 invalid_transition.';

CREATE FUNCTION api.membership_block(p_user_id uuid, p_game_id uuid, p_membership_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game games%ROWTYPE;
    v_membership memberships%ROWTYPE;
BEGIN
    PERFORM account_require(p_user_id);
    v_game := game_lock(p_game_id);
    IF v_game.game_id IS NULL OR NOT game_is_visible(v_game, p_user_id) THEN
        PERFORM fail(404, 'game_not_found', 'There is no such game.');
    END IF;
    SELECT * INTO v_membership FROM memberships WHERE membership_id = p_membership_id AND game_id = p_game_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'membership_not_found', 'There is no such seat.');
    END IF;
    PERFORM refuse(membership_refusal(v_game, v_membership, 'block', 'user', p_user_id::text));
    RETURN membership_json(membership_end(
        v_game, v_membership, 'blocked', membership_actor(v_game, v_membership, 'block', 'user', p_user_id::text)))::text;
END;
$$;
COMMENT ON FUNCTION api.membership_block(uuid, uuid, uuid) IS
    'Blocks a member of the caller''s game, who cannot come back to it. GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found, membership_not_found, GX409 invalid_transition.';

COMMIT;
