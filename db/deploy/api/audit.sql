-- Deploy galaxy-backend:api/audit to pg
-- requires: backend/audit
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.audit_list(
    p_admin text, p_actor text, p_action text, p_object_type text, p_object_id text, p_since timestamptz, p_until timestamptz,
    p_limit integer, p_cursor text
) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'audit_list:' || json_build_array(
        p_actor, p_action, p_object_type, p_object_id, extract(epoch FROM p_since), extract(epoch FROM p_until))::text;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(audit_json(r) ORDER BY r.audit_id DESC), array_agg(r.audit_id::text ORDER BY r.audit_id DESC) INTO v_items, v_keys
      FROM (SELECT l.* FROM audit_log AS l
             WHERE (v_before IS NULL OR l.audit_id < v_before)
               AND (p_actor IS NULL OR l.admin = p_actor)
               AND (p_action IS NULL OR l.action = p_action)
               AND (p_object_type IS NULL OR l.object_type = p_object_type)
               AND (p_object_id IS NULL OR l.object_id = p_object_id)
               AND (p_since IS NULL OR l.created_at >= p_since)
               AND (p_until IS NULL OR l.created_at < p_until)
             ORDER BY l.audit_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.audit_list(text, text, text, text, text, timestamptz, timestamptz, integer, text) IS
    'Who did what to what, newest first: by whom, what, to what, from a time on, before a time. GX400 invalid_cursor, GX401 unauthorized.';

COMMIT;
