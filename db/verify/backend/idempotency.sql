-- Verify galaxy-backend:backend/idempotency on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT caller, operation, request_key, request_hash, status, body, location, created_at FROM backend.idempotency_keys WHERE false;

DO $$
BEGIN
    INSERT INTO backend.idempotency_keys (caller, operation, request_key, request_hash, status)
    VALUES ('verify', 'verify', 'verify', sha256(''), 409);
    ASSERT false, 'a refusal is kept';
EXCEPTION WHEN check_violation THEN
    NULL;
END;
$$;

ROLLBACK;
