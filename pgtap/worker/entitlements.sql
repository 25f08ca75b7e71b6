-- Test galaxy-backend:worker/entitlements

BEGIN;
SELECT plan(13);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], returns text, volatility text);
INSERT INTO functions VALUES
    ('entitlements_settle', ARRAY['integer']::name[], 'integer', 'volatile');
SELECT function_returns('worker', name, arguments, returns, format('%s() answers %s', name, returns)) FROM functions;
SELECT volatility_is('worker', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('worker', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('worker', name, arguments, 'backend_worker', ARRAY['EXECUTE'], format('backend_worker may execute %s()', name)) FROM functions;
SELECT function_privs_are('worker', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_api', 'backend_push']) AS r;

SELECT backend.account_create('email', n || '@example.org', n || '@example.org', 'en', 'UTC', NULL) FROM unnest(ARRAY['ann', 'bob', 'cid', 'dan']) AS n \g /dev/null
SELECT pg_temp.grant_tier(user_id, 'monthly', backend.now() + interval '30 days') FROM backend.accounts WHERE email ~ 'ann|bob|cid' \g /dev/null
UPDATE backend.clock SET clock_offset = '30 days' - interval '1 microsecond';
SET LOCAL ROLE backend_worker;
SELECT is(worker.entitlements_settle(100), 0, 'nothing is written down before its time');
RESET ROLE;
UPDATE backend.clock SET clock_offset = '30 days';
SET LOCAL ROLE backend_worker;
SELECT is(worker.entitlements_settle(2), 2, 'no more are settled than are asked for');
SELECT is(worker.entitlements_settle(2), 1, 'then the rest');
SELECT is(worker.entitlements_settle(2), 0, 'and then none');
RESET ROLE;
SELECT results_eq(
    $$SELECT s.tier, r.source, r.reason_code, r.ends_at, count(*) FROM backend.entitlement_snapshots AS s JOIN backend.entitlement_records AS r USING (entitlement_record_id) GROUP BY 1, 2, 3, 4 ORDER BY 2$$,
    $$VALUES ('free', 'expiry', 'expired', NULL::timestamptz, 3::bigint), ('free', 'registration', 'registration', NULL, 1)$$, 'that free followed is on record');
SELECT is((SELECT count(*) FROM backend.entitlement_records WHERE source = 'expiry'), 3::bigint, 'once each');
SELECT is_empty('SELECT * FROM backend.invariants', 'nothing is wrong after all this');

SELECT * FROM finish();
ROLLBACK;
