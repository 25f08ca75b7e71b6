-- Test galaxy-backend:backend/idempotency

BEGIN;
SELECT plan(11);
\ir ../helpers.psql

SELECT has_table('backend', 'idempotency_keys', 'answers are kept');
SELECT col_is_pk('backend', 'idempotency_keys', ARRAY['caller', 'operation', 'request_key'], 'by caller, operation and key');
SELECT has_index('backend', 'idempotency_keys', 'idempotency_keys_by_creation', ARRAY['created_at'], 'the old ones are found');
SELECT is(
    pg_temp.violated(format('INSERT INTO backend.idempotency_keys (caller, operation, request_key, request_hash, status) VALUES (%s)', v)), c, d)
  FROM (VALUES
    ($$'', 'a', 'k', sha256(''), 201$$, 'idempotency_keys_caller_is_somebody', 'a caller is somebody'),
    ($$'a', 'A b', 'k', sha256(''), 201$$, 'idempotency_keys_operation_is_snake_case', 'an operation is one'),
    ($$'a', 'a', '', sha256(''), 201$$, 'idempotency_keys_request_key_has_1_to_128_characters', 'a key is something'),
    ($$'a', 'a', U&'\00e9', sha256(''), 201$$, 'idempotency_keys_request_key_has_1_to_128_characters', 'of ASCII'),
    ($$'a', 'a', repeat('k', 129), sha256(''), 201$$, 'idempotency_keys_request_key_has_1_to_128_characters', 'and not over-long'),
    ($$'a', 'a', 'k', 'x', 201$$, 'idempotency_keys_request_hash_has_32_bytes', 'a hash is one'),
    ($$'a', 'a', 'k', sha256(''), 409$$, 'idempotency_keys_keep_successes_only', 'refusals are not kept'),
    ($$'a', 'a', repeat('k', 128), sha256(''), 201$$, 'nothing', 'a good one is taken')) AS t (v, c, d);

SELECT * FROM finish();
ROLLBACK;
