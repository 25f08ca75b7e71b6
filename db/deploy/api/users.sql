-- Deploy galaxy-backend:api/users to pg
-- requires: backend/account_moderation
-- requires: backend/audit
-- requires: backend/pages

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.user_list(p_admin text, p_limit integer, p_cursor text, p_q text, p_status text[], p_tier text, p_sanction text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_q text := lower(btrim(normalize(p_q, NFC)));
    v_list text := 'user_list:' || jsonb_build_array(v_q, p_status, p_tier, p_sanction)::text;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    -- In the order of the key, up to a full page: no index helps to find what stands somewhere within a name.
    SELECT array_agg(r.item ORDER BY r.id DESC), array_agg(r.id::text ORDER BY r.id DESC) INTO v_items, v_keys
      FROM (SELECT f.user_id AS id, account_internal_json(f) AS item
              FROM (SELECT a.* FROM accounts AS a
                     WHERE (v_before IS NULL OR a.user_id < v_before)
                       AND (v_q IS NULL OR strpos(a.email, v_q) > 0 OR strpos(a.user_name, v_q) > 0
                            OR strpos(lower(a.display_name), v_q) > 0 OR a.user_id::text = v_q
                            OR EXISTS (SELECT FROM identities AS i WHERE i.user_id = a.user_id AND i.subject = btrim(p_q))
                            -- What is left of the address of somebody who is gone.
                            OR a.email_hash = sha256(convert_to(v_q, 'UTF8')))
                       AND (p_status IS NULL
                            OR CASE WHEN a.deleted_at IS NOT NULL THEN 'deleted' WHEN a.permanent_block THEN 'blocked' ELSE 'active' END
                               = ANY (p_status))
                       AND (p_tier IS NULL OR p_tier = (
                            -- Written down, unless something has begun or ended since.
                            SELECT CASE WHEN is_over(s.changes_at) THEN (entitlement_in_force(a.user_id)).tier ELSE s.tier END
                              FROM entitlement_snapshots AS s WHERE s.user_id = a.user_id))
                       AND (p_sanction IS NULL OR is_sanctioned(a.user_id, p_sanction))
                     ORDER BY a.user_id DESC
                     LIMIT p_limit + 1) AS f) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.user_list(text, integer, text, text, text[], text, text) IS
    'People, newest first: by a part of address, user name or display name, by id or by a subject of a provider; by state, tier and sanction. GX400 invalid_cursor, GX401 unauthorized.';

CREATE FUNCTION api.user_get(p_admin text, p_user_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    SELECT * INTO v_account FROM accounts WHERE user_id = p_user_id;
    IF NOT FOUND THEN
        PERFORM fail(404, 'account_not_found', 'There is no such account.');
    END IF;
    RETURN (account_internal_json(v_account) || jsonb_build_object(
        'entitlement_records', (
            SELECT coalesce(jsonb_agg(entitlement_record_json(r) ORDER BY r.entitlement_record_id DESC), '[]')
              FROM (SELECT * FROM entitlement_records AS e WHERE e.user_id = p_user_id ORDER BY e.entitlement_record_id DESC LIMIT 50) AS r),
        'sanction_records', (
            SELECT coalesce(jsonb_agg(sanction_record_json(r) ORDER BY r.sanction_record_id DESC), '[]')
              FROM (SELECT * FROM sanction_records AS s WHERE s.user_id = p_user_id ORDER BY s.sanction_record_id DESC LIMIT 50) AS r),
        'limit_records', (
            SELECT coalesce(jsonb_agg(limit_record_json(r) ORDER BY r.limit_record_id DESC), '[]')
              FROM (SELECT * FROM limit_records AS l WHERE l.user_id = p_user_id ORDER BY l.limit_record_id DESC LIMIT 50) AS r)))::text;
END;
$$;
COMMENT ON FUNCTION api.user_get(text, uuid) IS
    'A person, whatever their state, with the newest fifty grants, sanctions and limits. GX401 unauthorized, GX404 account_not_found.';

CREATE FUNCTION api.user_entitlement_grant(p_admin text, p_user_id uuid, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_starts_at timestamptz := (p_body ->> 'starts_at')::timestamptz;
    v_ends_at timestamptz;
    v_problems jsonb := jsonb_build_array();
    v_record entitlement_records%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_ends_at := moment_to_come(p_body, 'ends_at');
    IF v_ends_at <= coalesce(v_starts_at, backend.now()) THEN
        v_problems := v_problems || '{"path": "ends_at", "problem": "is not after starts_at"}'::jsonb;
    ELSIF v_ends_at IS NULL AND is_over(entitlement_end(p_body ->> 'tier', v_starts_at)) THEN
        v_problems := v_problems || '{"path": "starts_at", "problem": "is so long ago that it would be over"}'::jsonb;
    END IF;
    IF NOT EXISTS (SELECT FROM entitlement_tiers AS t WHERE t.tier = p_body ->> 'tier') THEN
        v_problems := v_problems || '{"path": "tier", "problem": "is not a tier"}'::jsonb;
    END IF;
    IF v_problems <> '[]' THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.', v_problems);
    END IF;
    PERFORM account_moderate(p_user_id);
    v_record := entitlement_grant(p_user_id, p_body ->> 'tier', p_admin, p_body ->> 'reason_code', v_starts_at, v_ends_at);
    PERFORM audit(p_admin, 'user_entitlement_grant', 'account', p_user_id::text, p_body);
    RETURN ROW(201, entitlement_record_json(v_record)::text, '/api/v1/admin/users/' || p_user_id)::api.reply;
END;
$$;
COMMENT ON FUNCTION api.user_entitlement_grant(text, uuid, jsonb) IS
    'Grants a tier to a person. GX400 invalid_request, GX401 unauthorized, GX404 account_not_found, GX409 conflict.';

CREATE FUNCTION api.user_sanction_apply(p_admin text, p_user_id uuid, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_expires_at timestamptz;
    v_record sanction_records%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_expires_at := moment_to_come(p_body, 'expires_at');
    IF p_body ->> 'code' = 'permanent_block' AND v_expires_at IS NOT NULL THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.', '[{"path": "expires_at", "problem": "a permanent block has no end"}]');
    END IF;
    PERFORM account_moderate(p_user_id);
    v_record := sanction_apply(p_user_id, p_body ->> 'code', p_body ->> 'reason', p_admin, v_expires_at);
    PERFORM audit(p_admin, 'user_sanction_apply', 'account', p_user_id::text, p_body);
    RETURN ROW(201, sanction_record_json(v_record)::text, '/api/v1/admin/users/' || p_user_id)::api.reply;
END;
$$;
COMMENT ON FUNCTION api.user_sanction_apply(text, uuid, jsonb) IS
    'Puts a sanction in force, with what follows from it. GX400 invalid_request, GX401 unauthorized, GX404 account_not_found, GX409 conflict.';

CREATE FUNCTION api.user_sanction_lift(p_admin text, p_user_id uuid, p_code text, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    PERFORM account_moderate(p_user_id);
    PERFORM sanction_lift(p_user_id, p_code, p_body ->> 'reason', p_admin);
    PERFORM audit(p_admin, 'user_sanction_lift', 'account', p_user_id::text, p_body || jsonb_build_object('code', p_code));
    SELECT * INTO v_account FROM accounts WHERE user_id = p_user_id;
    RETURN account_internal_json(v_account)::text;
END;
$$;
COMMENT ON FUNCTION api.user_sanction_lift(text, uuid, text, jsonb) IS
    'Ends a sanction that is in force. GX401 unauthorized, GX404 account_not_found, sanction_not_found, GX409 conflict.';

CREATE FUNCTION api.user_limit_apply(p_admin text, p_user_id uuid, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_expires_at timestamptz;
    v_record limit_records%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    v_expires_at := moment_to_come(p_body, 'expires_at');
    PERFORM account_moderate(p_user_id);
    v_record := limit_apply(p_user_id, p_body ->> 'code', (p_body ->> 'value')::numeric::integer, p_body ->> 'reason', p_admin, v_expires_at);
    PERFORM audit(p_admin, 'user_limit_apply', 'account', p_user_id::text, p_body);
    RETURN ROW(201, limit_record_json(v_record)::text, '/api/v1/admin/users/' || p_user_id)::api.reply;
END;
$$;
COMMENT ON FUNCTION api.user_limit_apply(text, uuid, jsonb) IS
    'Gives a person a number of their own instead of their tiers. GX400 invalid_request, GX401 unauthorized, GX404 account_not_found, GX409 conflict.';

CREATE FUNCTION api.user_limit_clear(p_admin text, p_user_id uuid, p_code text, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
BEGIN
    PERFORM administrator_require(p_admin);
    PERFORM account_moderate(p_user_id);
    PERFORM limit_clear(p_user_id, p_code, p_body ->> 'reason', p_admin);
    PERFORM audit(p_admin, 'user_limit_clear', 'account', p_user_id::text, p_body || jsonb_build_object('code', p_code));
    SELECT * INTO v_account FROM accounts WHERE user_id = p_user_id;
    RETURN account_internal_json(v_account)::text;
END;
$$;
COMMENT ON FUNCTION api.user_limit_clear(text, uuid, text, jsonb) IS
    'Takes a persons own number away. GX401 unauthorized, GX404 account_not_found, limit_not_found, GX409 conflict.';

CREATE FUNCTION api.user_session_list(p_admin text, p_user_id uuid, p_limit integer, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := 'user_session_list:' || p_user_id;
    v_before uuid := cursor_read_id(v_list, p_cursor);
    v_items jsonb[];
    v_keys text[];
BEGIN
    PERFORM administrator_require(p_admin);
    IF NOT EXISTS (SELECT FROM accounts AS a WHERE a.user_id = p_user_id) THEN
        PERFORM fail(404, 'account_not_found', 'There is no such account.');
    END IF;
    SELECT array_agg(r.item ORDER BY r.id DESC), array_agg(r.id::text ORDER BY r.id DESC) INTO v_items, v_keys
      FROM (SELECT s.device_session_id AS id,
                   session_json(s)::jsonb || jsonb_build_object('last_seen_at', ts(s.last_seen_at)) AS item
              FROM device_sessions AS s
             WHERE s.user_id = p_user_id AND (v_before IS NULL OR s.device_session_id < v_before)
             ORDER BY s.device_session_id DESC
             LIMIT p_limit + 1) AS r;
    RETURN page(v_list, v_items, v_keys, p_limit);
END;
$$;
COMMENT ON FUNCTION api.user_session_list(text, uuid, integer, text) IS
    'A persons sessions, newest first. GX400 invalid_cursor, GX401 unauthorized, GX404 account_not_found.';

CREATE FUNCTION api.user_session_revoke_all(p_admin text, p_user_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    PERFORM administrator_require(p_admin);
    IF NOT EXISTS (SELECT FROM accounts AS a WHERE a.user_id = p_user_id) THEN
        PERFORM fail(404, 'account_not_found', 'There is no such account.');
    END IF;
    v_count := session_revoke_all(p_user_id, 'revoked_by_admin');
    PERFORM audit(p_admin, 'user_session_revoke_all', 'account', p_user_id::text,
                  coalesce(p_body, '{}') || jsonb_build_object('revoked', v_count));
    RETURN json_build_object('revoked', v_count)::text;
END;
$$;
COMMENT ON FUNCTION api.user_session_revoke_all(text, uuid, jsonb) IS
    'Revokes every session of a person, with one invalidation. GX401 unauthorized, GX404 account_not_found.';

CREATE FUNCTION api.user_soft_delete(p_admin text, p_user_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM administrator_require(p_admin);
    PERFORM ways_in_lock(p_user_id);
    PERFORM account_moderate(p_user_id);
    PERFORM account_delete(p_user_id);
    PERFORM audit(p_admin, 'user_soft_delete', 'account', p_user_id::text, p_body);
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION api.user_soft_delete(text, uuid, jsonb) IS
    'Deletes an account for good. GX401 unauthorized, GX404 account_not_found, GX409 conflict.';

COMMIT;
