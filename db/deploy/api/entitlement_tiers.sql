-- Deploy galaxy-backend:api/entitlement_tiers to pg
-- requires: backend/account_moderation
-- requires: backend/audit
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.entitlement_tier_list(p_admin text, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_after text := cursor_read('entitlement_tier_list', p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(entitlement_tier_json(r) ORDER BY r.tier COLLATE "C"), array_agg(r.tier ORDER BY r.tier COLLATE "C")
      INTO v_items, v_keys
      FROM (SELECT t.* FROM entitlement_tiers AS t
             WHERE v_after IS NULL OR t.tier COLLATE "C" > v_after COLLATE "C"
             ORDER BY t.tier COLLATE "C"
             LIMIT p_limit + 1) AS r;
    RETURN page('entitlement_tier_list', v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.entitlement_tier_list(text, integer, text) IS
    'The tiers by name. GX400 invalid_cursor, GX401 unauthorized.';

CREATE FUNCTION api.entitlement_tier_update(p_admin text, p_tier text, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_tier entitlement_tiers%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    IF p_tier = 'free' AND p_body ->> 'duration_days' IS NOT NULL THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.', '[{"path": "duration_days", "problem": "the free tier has no end"}]');
    END IF;
    UPDATE entitlement_tiers
       SET is_paid = coalesce((p_body ->> 'is_paid')::boolean, is_paid),
           duration = CASE WHEN p_body ? 'duration_days' THEN make_interval(days => (p_body ->> 'duration_days')::numeric::integer) ELSE duration END,
           max_registered_race_names = coalesce((p_body ->> 'max_registered_race_names')::numeric::integer, max_registered_race_names),
           max_owned_private_games = coalesce((p_body ->> 'max_owned_private_games')::numeric::integer, max_owned_private_games),
           max_pending_applications = coalesce((p_body ->> 'max_pending_applications')::numeric::integer, max_pending_applications),
           max_active_memberships = coalesce((p_body ->> 'max_active_memberships')::numeric::integer, max_active_memberships)
     WHERE tier = p_tier
    RETURNING * INTO v_tier;
    IF NOT FOUND THEN
        PERFORM fail(404, 'entitlement_tier_not_found', 'There is no such tier.');
    END IF;
    PERFORM audit(p_admin, 'entitlement_tier_update', 'entitlement_tier', p_tier, p_body);
    RETURN entitlement_tier_json(v_tier)::text;
END;
$$;
COMMENT ON FUNCTION api.entitlement_tier_update(text, text, jsonb) IS
    'Changes what a tier gives, at once and for all who have it; grants keep their ends. GX400 invalid_request, GX401 unauthorized, GX404 entitlement_tier_not_found.';

COMMIT;
