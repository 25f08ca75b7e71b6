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
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM account_require(p_user_id);
    v_game := game_find(p_game_id, p_user_id);
    IF v_game.visibility = 'private' AND v_game.owner_user_id <> p_user_id AND NOT EXISTS (
        SELECT FROM memberships AS m WHERE m.game_id = p_game_id AND m.user_id = p_user_id AND m.status = 'active'
    ) THEN
        PERFORM fail(403, 'forbidden', 'Only its members see who sits in a private game.');
    END IF;
    SELECT array_agg(membership_json(r) ORDER BY r.membership_id DESC), array_agg(r.membership_id::text ORDER BY r.membership_id DESC)
      INTO v_items, v_keys
      FROM (SELECT m.* FROM memberships AS m
             WHERE m.game_id = p_game_id AND (v_before IS NULL OR m.membership_id < v_before)
             ORDER BY m.membership_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.membership_list(uuid, uuid, integer, text) IS
    'Who sits, or sat, in a game that the caller may see, newest first. GX400 invalid_cursor, GX403 account_blocked, account_deleted, sanctioned, forbidden, GX404 account_not_found, game_not_found.';

COMMIT;
