-- Deploy galaxy-backend:api/idempotency to pg
-- requires: backend/idempotency
-- requires: backend/accounts
-- requires: backend/administrators

-- Why: the app calls claim, the command's own function and store in one transaction. The lock that claim takes is held to its
-- end, so that a second caller waits for the first, and finds its answer or does the command itself.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.idempotency_claim(p_group text, p_caller text, p_operation text, p_key text, p_request_hash bytea) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_known idempotency_keys%ROWTYPE;
BEGIN
    -- Whoever may do nothing is told nothing of what was answered before.
    IF p_group = 'user' THEN
        PERFORM account_require(p_caller::uuid);
    ELSIF p_group = 'admin' THEN
        PERFORM administrator_require(p_caller);
    END IF;
    -- Before any other lock of the command.
    PERFORM pg_advisory_xact_lock(hashtextextended(format('idempotency:%s:%s:%s', p_caller, p_operation, p_key), 7));
    DELETE FROM idempotency_keys AS k
     WHERE k.caller = p_caller AND k.operation = p_operation AND k.request_key = p_key AND k.created_at <= backend.now() - interval '1 day';
    SELECT * INTO v_known FROM idempotency_keys AS k WHERE k.caller = p_caller AND k.operation = p_operation AND k.request_key = p_key;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF v_known.request_hash <> p_request_hash THEN
        PERFORM fail(409, 'idempotency_conflict', 'This key was used for another request.');
    END IF;
    RETURN ROW(v_known.status, v_known.body, v_known.location)::api.reply;
END;
$$;
COMMENT ON FUNCTION api.idempotency_claim(text, text, text, text, bytea) IS
    'Makes the caller the only one with this key to the end of the transaction; the answer that was given, null where there is none. GX401 unauthorized, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found, GX409 idempotency_conflict.';

CREATE FUNCTION api.idempotency_store(
    p_caller text, p_operation text, p_key text, p_request_hash bytea, p_status integer, p_body text, p_location text
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO idempotency_keys (caller, operation, request_key, request_hash, status, body, location)
    VALUES (p_caller, p_operation, p_key, p_request_hash, p_status, p_body, p_location);
END;
$$;
COMMENT ON FUNCTION api.idempotency_store(text, text, text, bytea, integer, text, text) IS
    'Keeps a successful answer, in the transaction that claimed its key. 23505 without the claim, 23514 for a refusal.';

COMMIT;
