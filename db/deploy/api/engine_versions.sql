-- Deploy galaxy-backend:api/engine_versions to pg
-- requires: backend/engine_versions
-- requires: backend/audit
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.engine_version_list(p_admin text, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_before text := version_key(cursor_read('engine_version_list', p_cursor));
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT array_agg(engine_version_json(r) ORDER BY version_key(r.version) COLLATE "C" DESC),
           array_agg(r.version ORDER BY version_key(r.version) COLLATE "C" DESC)
      INTO v_items, v_keys
      FROM (SELECT v.* FROM engine_versions AS v
             WHERE v_before IS NULL OR version_key(v.version) COLLATE "C" < v_before COLLATE "C"
             ORDER BY version_key(v.version) COLLATE "C" DESC
             LIMIT p_limit + 1) AS r;
    RETURN page('engine_version_list', v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.engine_version_list(text, integer, text) IS
    'The engine versions, newest first. GX400 invalid_cursor, GX401 unauthorized.';

CREATE FUNCTION api.engine_version_create(p_admin text, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_version engine_versions%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    INSERT INTO engine_versions (version, image_ref) VALUES (p_body ->> 'version', p_body ->> 'image_ref') RETURNING * INTO v_version;
    PERFORM audit(p_admin, 'engine_version_create', 'engine_version', v_version.version, p_body);
    RETURN ROW(201, engine_version_json(v_version)::text, '/api/v1/admin/engine-versions/' || v_version.version)::api.reply;
END;
$$;
COMMENT ON FUNCTION api.engine_version_create(text, jsonb) IS
    'Registers an engine version, enabled. GX401 unauthorized, GX409 engine_version_exists.';

CREATE FUNCTION api.engine_version_update(p_admin text, p_version text, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_version engine_versions%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    UPDATE engine_versions
       SET image_ref = coalesce(p_body ->> 'image_ref', image_ref), enabled = coalesce((p_body ->> 'enabled')::boolean, enabled)
     WHERE version = p_version
    RETURNING * INTO v_version;
    IF NOT FOUND THEN
        PERFORM fail(404, 'engine_version_not_found', 'There is no such engine version.');
    END IF;
    PERFORM audit(p_admin, 'engine_version_update', 'engine_version', p_version, p_body);
    RETURN engine_version_json(v_version)::text;
END;
$$;
COMMENT ON FUNCTION api.engine_version_update(text, text, jsonb) IS
    'Changes the image of an engine version, or enables or disables it. GX401 unauthorized, GX404 engine_version_not_found.';

CREATE FUNCTION api.engine_version_disable(p_admin text, p_version text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_version engine_versions%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    UPDATE engine_versions SET enabled = false WHERE version = p_version RETURNING * INTO v_version;
    IF NOT FOUND THEN
        PERFORM fail(404, 'engine_version_not_found', 'There is no such engine version.');
    END IF;
    PERFORM audit(p_admin, 'engine_version_disable', 'engine_version', p_version, NULL);
    RETURN engine_version_json(v_version)::text;
END;
$$;
COMMENT ON FUNCTION api.engine_version_disable(text, text) IS
    'No game is started with this version any more; again changes nothing. GX401 unauthorized, GX404 engine_version_not_found.';

COMMIT;
