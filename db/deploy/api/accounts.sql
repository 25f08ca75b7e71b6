-- Deploy galaxy-backend:api/accounts to pg
-- requires: backend/account_deletion

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.my_account_get(p_user_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN account_json(account_require(p_user_id))::text;
END;
$$;
COMMENT ON FUNCTION api.my_account_get(uuid) IS
    'The caller''s account. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

CREATE FUNCTION api.my_profile_update(p_user_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := display_name_clean(p_body ->> 'display_name');
    v_account accounts%ROWTYPE;
BEGIN
    PERFORM account_require(p_user_id);
    IF v_name IS NULL THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.',
                     '[{"path": "display_name", "problem": "is not 1 to 64 characters that are seen, on one line"}]');
    END IF;
    PERFORM account_lock(p_user_id);
    PERFORM sanction_refuse(p_user_id, 'profile_update_block');
    UPDATE accounts SET display_name = v_name WHERE user_id = p_user_id RETURNING * INTO v_account;
    RETURN account_json(v_account)::text;
END;
$$;
COMMENT ON FUNCTION api.my_profile_update(uuid, jsonb) IS
    'Changes how the caller is called. GX400 invalid_request, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

CREATE FUNCTION api.my_settings_update(p_user_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
BEGIN
    PERFORM account_require(p_user_id);
    IF p_body ? 'time_zone' AND NOT EXISTS (SELECT FROM time_zones AS z WHERE z.time_zone = p_body ->> 'time_zone') THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.',
                     '[{"path": "time_zone", "problem": "is not a known IANA time zone"}]');
    END IF;
    PERFORM account_lock(p_user_id);
    UPDATE accounts
       SET preferred_language = coalesce(p_body ->> 'preferred_language', preferred_language),
           time_zone = coalesce(p_body ->> 'time_zone', time_zone)
     WHERE user_id = p_user_id
    RETURNING * INTO v_account;
    PERFORM turn_reminders_reschedule(p_user_id);
    RETURN account_json(v_account)::text;
END;
$$;
COMMENT ON FUNCTION api.my_settings_update(uuid, jsonb) IS
    'Changes the caller''s language and time zone; what is absent stays. GX400 invalid_request, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

CREATE FUNCTION api.my_account_delete(p_user_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM account_require(p_user_id);
    PERFORM ways_in_lock(p_user_id);
    -- Looks again: a block that came first is not escaped by going.
    PERFORM account_lock(p_user_id);
    PERFORM account_delete(p_user_id);
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION api.my_account_delete(uuid) IS
    'Deletes the caller''s account for good. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

CREATE FUNCTION api.account_internal_get(p_user_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
BEGIN
    SELECT * INTO v_account FROM accounts WHERE user_id = p_user_id;
    IF NOT FOUND THEN
        PERFORM fail(404, 'account_not_found', 'There is no such account.');
    END IF;
    RETURN account_internal_json(v_account)::text;
END;
$$;
COMMENT ON FUNCTION api.account_internal_get(uuid) IS
    'An account with what the gateway must know of it, whatever its state. GX404 account_not_found.';

COMMIT;
