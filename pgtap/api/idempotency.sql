-- Test galaxy-backend:api/idempotency

BEGIN;
SELECT plan(32);
\ir ../helpers.psql
-- Before anything is counted for the whole service: tests that do that and move the clock go one after another.
SELECT FROM backend.clock FOR UPDATE \g /dev/null

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], result text, volatility text);
INSERT INTO functions VALUES
    ('idempotency_claim', ARRAY['text', 'text', 'text', 'text', 'bytea'], 'api.reply', 'volatile'),
    ('idempotency_store', ARRAY['text', 'text', 'text', 'bytea', 'integer', 'text', 'text'], 'void', 'volatile');
SELECT function_returns('api', name, arguments, result, format('%s() is %s', name, result)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT a.user_id AS ann FROM backend.account_create('email', 'ann@example.org', 'ann@example.org', 'en', 'UTC', NULL) AS a \gset
SELECT a.user_id AS bob FROM backend.account_create('email', 'bob@example.org', 'bob@example.org', 'en', 'UTC', NULL) AS a \gset

-- Claimed and kept.
SET LOCAL ROLE backend_api;
SELECT is(api.idempotency_claim('user', :'ann', 'game_create', 'k', sha256('1')), NULL, 'a key is new');
SELECT is(api.idempotency_claim('user', :'ann', 'game_create', 'k', sha256('2')), NULL, 'and stays so until an answer is kept');
SELECT lives_ok(format($$SELECT api.idempotency_store(%L, 'game_create', 'k', sha256('1'), 201, '{"a": 1}', '/there')$$, :'ann'), 'an answer is kept');
SELECT is(
    api.idempotency_claim('user', :'ann', 'game_create', 'k', sha256('1')), ROW(201, '{"a": 1}', '/there')::api.reply, 'the same request gets it');
SELECT throws_ok(
    format($$SELECT api.idempotency_claim('user', %L, 'game_create', 'k', sha256('2'))$$, :'ann'), 'GX409', 'idempotency_conflict', 'another is refused');
SELECT is(api.idempotency_claim('user', :'ann', 'invite_create', 'k', sha256('2')), NULL, 'another operation has keys of its own');
SELECT is(api.idempotency_claim('user', :'bob', 'game_create', 'k', sha256('2')), NULL, 'another person too');
SELECT is(api.idempotency_claim('user', :'ann', 'game_create', 'K', sha256('2')), NULL, 'another key is another');
SELECT is(api.idempotency_claim('internal', 'internal', 'identity_link', 'k', sha256('1')), NULL, 'the gateway has keys');
SELECT is(api.idempotency_claim('admin', 'root', 'engine_version_create', 'k', sha256('1')), NULL, 'and an administrator');
SELECT throws_ok(
    format($$SELECT api.idempotency_store(%L, 'game_create', 'k', sha256('1'), 201, NULL, NULL)$$, :'ann'), '23505', NULL, 'a key has one answer');
SELECT throws_ok(
    format($$SELECT api.idempotency_store(%L, 'game_create', 'l', sha256('1'), 400, NULL, NULL)$$, :'ann'), '23514', NULL, 'a refusal is none');

-- For a day.
RESET ROLE;
UPDATE backend.clock SET clock_offset = '1 day' - interval '1 microsecond';
SET LOCAL ROLE backend_api;
SELECT is((api.idempotency_claim('user', :'ann', 'game_create', 'k', sha256('1'))).status, 201, 'it is good for a day');
RESET ROLE;
UPDATE backend.clock SET clock_offset = '1 day';
SET LOCAL ROLE backend_api;
SELECT is(api.idempotency_claim('user', :'ann', 'game_create', 'k', sha256('2')), NULL, 'then the key is new');
SELECT lives_ok(format($$SELECT api.idempotency_store(%L, 'game_create', 'k', sha256('2'), 201, NULL, NULL)$$, :'ann'), 'and can be used again');
RESET ROLE;
UPDATE backend.clock SET clock_offset = '0';

-- Whoever may do nothing is told nothing.
SELECT throws_ok(
    $$SELECT api.idempotency_claim('user', gen_random_uuid()::text, 'game_create', 'k', sha256('1'))$$, 'GX404', 'account_not_found', 'nobody has no keys');
SELECT throws_ok(
    $$SELECT api.idempotency_claim('admin', 'eve', 'engine_version_create', 'k', sha256('1'))$$, 'GX401', 'unauthorized', 'nor has who is no administrator');
INSERT INTO backend.sanction_records (user_id, code, action, reason, actor) VALUES (:'ann', 'login_block', 'apply', 'x', 'root') RETURNING sanction_record_id AS sanction \gset
INSERT INTO backend.sanction_active (user_id, code, sanction_record_id, reason) VALUES (:'ann', 'login_block', :'sanction', 'x');
SELECT throws_ok(
    format($$SELECT api.idempotency_claim('user', %L, 'game_create', 'k', sha256('2'))$$, :'ann'), 'GX403', 'sanctioned', 'nor who may not sign in');
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'ann';
SELECT throws_ok(
    format($$SELECT api.idempotency_claim('user', %L, 'game_create', 'k', sha256('2'))$$, :'ann'), 'GX403', 'account_blocked', 'nor who is blocked');
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'ann';
SELECT throws_ok(
    format($$SELECT api.idempotency_claim('user', %L, 'game_create', 'k', sha256('2'))$$, :'ann'), 'GX403', 'account_deleted', 'nor who is gone');

SELECT * FROM finish();
ROLLBACK;
