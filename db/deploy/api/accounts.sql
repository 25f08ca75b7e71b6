-- Deploy galaxy-backend:api/accounts to pg
-- requires: backend/accounts

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
    RETURN (account_json(v_account) || jsonb_build_object(
        'permanent_block', v_account.permanent_block,
        'login_blocked', is_sanctioned(p_user_id, 'login_block'),
        'deleted_at', ts(v_account.deleted_at)))::text;
END;
$$;
COMMENT ON FUNCTION api.account_internal_get(uuid) IS
    'An account with what the gateway must know of it, whatever its state. GX404 account_not_found.';

COMMIT;
