-- Deploy galaxy-backend:backend/idempotency to pg
-- requires: backend/clock

-- Why: whoever sends a command again because its answer was lost must not have it done again. The first successful answer is
-- stored in the command's own transaction, so that there is either both or neither.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.idempotency_keys (
    caller text NOT NULL CONSTRAINT idempotency_keys_caller_is_somebody CHECK (length(caller) BETWEEN 1 AND 64),
    operation text NOT NULL CONSTRAINT idempotency_keys_operation_is_snake_case CHECK (operation ~ '^[a-z][a-z0-9_]*$'),
    request_key text NOT NULL CONSTRAINT idempotency_keys_request_key_has_1_to_128_characters CHECK (request_key ~ '^[ -~]{1,128}$'),
    request_hash bytea NOT NULL CONSTRAINT idempotency_keys_request_hash_has_32_bytes CHECK (length(request_hash) = 32),
    status integer NOT NULL CONSTRAINT idempotency_keys_keep_successes_only CHECK (status BETWEEN 200 AND 299),
    body text,
    location text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (caller, operation, request_key)
);
COMMENT ON TABLE backend.idempotency_keys IS 'The first successful answer to a command that was sent with an Idempotency-Key; for a day.';
COMMENT ON COLUMN backend.idempotency_keys.caller IS 'A person''s id, an administrator''s name, or internal.';
COMMENT ON COLUMN backend.idempotency_keys.request_hash IS 'Of path, query and body, keyed with what the database does not know.';
COMMENT ON COLUMN backend.idempotency_keys.body IS 'As it was sent, its one-time secrets as null.';
-- Retention.
CREATE INDEX idempotency_keys_by_creation ON backend.idempotency_keys (created_at);

COMMIT;
