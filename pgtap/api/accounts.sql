-- Test galaxy-backend:api/accounts

BEGIN;
SELECT plan(47);
SELECT FROM backend.clock FOR UPDATE \g /dev/null

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text);
INSERT INTO functions VALUES ('my_account_get'), ('account_internal_get');
SELECT function_returns('api', name, ARRAY['uuid'], 'text', format('%s() has one answer', name)) FROM functions;
SELECT volatility_is('api', name, ARRAY['uuid'], 'stable', format('%s() is STABLE', name)) FROM functions;
SELECT is_definer('api', name, ARRAY['uuid'], format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, ARRAY['uuid'], 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, ARRAY['uuid'], r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

SELECT a.user_id AS ann, gen_random_uuid() AS nobody
  FROM backend.account_create('email', 'ann@example.org', 'ann@example.org', 'de', 'Europe/Berlin', 'DE') AS a \gset
SELECT backend.account_json(a) AS account FROM backend.accounts AS a WHERE user_id = :'ann' \gset
SET LOCAL ROLE backend_api;

-- For the person.
SELECT is(api.my_account_get(:'ann')::jsonb, :'account'::jsonb, 'a person gets their account');
SELECT throws_ok(format('SELECT api.my_account_get(%L)', :'nobody'), 'GX404', 'account_not_found', 'nobody has none');

-- For the gateway.
SELECT is(
    api.account_internal_get(:'ann')::jsonb,
    :'account'::jsonb || '{"permanent_block": false, "login_blocked": false, "deleted_at": null}', 'the gateway gets more');
SELECT throws_ok(format('SELECT api.account_internal_get(%L)', :'nobody'), 'GX404', 'account_not_found', 'nobody is not there');
RESET ROLE;
INSERT INTO backend.sanction_records (user_id, code, action, reason, actor) VALUES (:'ann', 'login_block', 'apply', 'x', 'root') RETURNING sanction_record_id AS sanction \gset
INSERT INTO backend.sanction_active (user_id, code, sanction_record_id, reason, expires_at)
VALUES (:'ann', 'login_block', :'sanction', 'x', backend.now() + interval '1 hour');
SET LOCAL ROLE backend_api;
SELECT throws_ok(format('SELECT api.my_account_get(%L)', :'ann'), 'GX403', 'sanctioned', 'who may not sign in gets nothing');
SELECT is(api.account_internal_get(:'ann')::jsonb -> 'login_blocked', 'true', 'of which the gateway is told');
RESET ROLE;
UPDATE backend.clock SET clock_offset = '1 hour';
SET LOCAL ROLE backend_api;
SELECT is(api.account_internal_get(:'ann')::jsonb -> 'login_blocked', 'false', 'as long as it lasts');
RESET ROLE;
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'ann';
SET LOCAL ROLE backend_api;
SELECT throws_ok(format('SELECT api.my_account_get(%L)', :'ann'), 'GX403', 'account_blocked', 'who is blocked for good gets nothing');
SELECT is(api.account_internal_get(:'ann')::jsonb -> 'permanent_block', 'true', 'of which the gateway is told');
RESET ROLE;
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'ann';
SET LOCAL ROLE backend_api;
SELECT throws_ok(format('SELECT api.my_account_get(%L)', :'ann'), 'GX403', 'account_deleted', 'who is gone gets nothing');
SELECT is(
    api.account_internal_get(:'ann')::jsonb ->> 'deleted_at',
    to_char((transaction_timestamp() + interval '1 hour') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'of which the gateway is told');
RESET ROLE;

-- Changes.
SELECT function_returns('api', name, arguments, 'text', format('%s() has one answer', name)) FROM (VALUES ('my_profile_update', ARRAY['uuid', 'jsonb']::name[]), ('my_settings_update', ARRAY['uuid', 'jsonb']), ('my_account_delete', ARRAY['uuid'])) AS t(name, arguments);
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM (VALUES ('my_profile_update', ARRAY['uuid', 'jsonb']::name[]), ('my_settings_update', ARRAY['uuid', 'jsonb']), ('my_account_delete', ARRAY['uuid'])) AS t(name, arguments);
SELECT a.user_id AS bob FROM backend.account_create('email', 'bob@example.org', 'bob@example.org', 'de', 'Europe/Berlin', 'DE') AS a \gset
SET LOCAL ROLE backend_api;
SELECT is(api.my_profile_update(:'bob', E'{"display_name": "  Bo\\u0308b "}')::jsonb ->> 'display_name', E'B\u00f6b', 'a name is trimmed and kept in NFC');
SELECT is(api.my_account_get(:'bob')::jsonb ->> 'display_name', E'B\u00f6b', 'and stays');
SELECT throws_ok(format('SELECT api.my_profile_update(%L, %L)', :'bob', jsonb_build_object('display_name', n)), 'GX400', 'invalid_request', d)
  FROM (VALUES ('   ', 'a name is something'), (E'\u200b', 'that is seen'), (repeat('x', 65), 'not too long'), (E'a\u202eb', 'and turns nothing')) AS t(n, d);
SELECT api.my_settings_update(:'bob', '{"preferred_language": "pt-BR"}') AS body \gset
SELECT is(:'body'::jsonb ->> k, v, 'what is absent stays: ' || k) FROM (VALUES ('preferred_language', 'pt-BR'), ('time_zone', 'Europe/Berlin'), ('display_name', E'B\u00f6b')) AS t(k, v);
SELECT is(api.my_settings_update(:'bob', '{"time_zone": "Asia/Kolkata"}')::jsonb ->> 'time_zone', 'Asia/Kolkata', 'a time zone is changed');
SELECT throws_ok(format('SELECT api.my_settings_update(%L, ''{"time_zone": "Mars/Olympus"}'')', :'bob'), 'GX400', 'invalid_request', 'to one that is known');
SELECT is(api.my_account_delete(:'bob'), NULL, 'somebody goes');
CREATE TEMPORARY TABLE changes AS SELECT unnest(ARRAY['SELECT api.my_account_delete(%L)', 'SELECT api.my_profile_update(%L, ''{"display_name": "x"}'')', 'SELECT api.my_settings_update(%L, ''{"time_zone": "UTC"}'')']) AS call;
SELECT throws_ok(format(call, :'bob'), 'GX403', 'account_deleted', 'for good') FROM changes;
SELECT throws_ok(format(call, :'nobody'), 'GX404', 'account_not_found', 'nobody does not') FROM changes;
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
