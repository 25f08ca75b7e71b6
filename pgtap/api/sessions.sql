-- Test galaxy-backend:api/sessions

BEGIN;
SELECT plan(105);
\ir ../helpers.psql
-- Before anything is counted for the whole service: tests that do that and move the clock go one after another.
SELECT FROM backend.clock FOR UPDATE \g /dev/null

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], volatility text);
INSERT INTO functions VALUES
    ('session_get', ARRAY['uuid'], 'stable'), ('session_resolve', ARRAY['jsonb', 'bytea'], 'stable'), ('session_revoke', ARRAY['uuid', 'jsonb'], 'volatile'),
    ('session_revoke_all', ARRAY['uuid', 'jsonb'], 'volatile'), ('my_session_list', ARRAY['uuid', 'integer', 'text'], 'stable'),
    ('my_session_revoke', ARRAY['uuid', 'uuid'], 'volatile'), ('my_session_revoke_all', ARRAY['uuid'], 'volatile');
SELECT function_returns('api', name, arguments, 'text', format('%s() has one answer', name)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

SELECT a.user_id AS ann FROM backend.account_create('email', 'ann@example.org', 'ann@example.org', 'en', 'UTC', NULL) AS a \gset
SELECT a.user_id AS bob FROM backend.account_create('email', 'bob@example.org', 'bob@example.org', 'en', 'UTC', NULL) AS a \gset
-- Ids that sort as they are numbered.
CREATE FUNCTION pg_temp.session_id(p_number integer) RETURNS uuid LANGUAGE sql
RETURN format('0197f3a2-0000-7000-8000-%s', lpad(p_number::text, 12, '0'))::uuid;
INSERT INTO backend.device_sessions (device_session_id, user_id, kind, client_public_key)
SELECT pg_temp.session_id(i), CASE WHEN i <= 5 THEN :'ann' ELSE :'bob' END::uuid, 'key', decode(repeat('01', 32), 'hex') FROM generate_series(1, 6) AS i;
UPDATE backend.device_sessions SET last_seen_at = '2026-01-02T03:04:05Z' WHERE device_session_id = pg_temp.session_id(5);
SELECT pg_temp.session_id(1) AS s1, pg_temp.session_id(2) AS s2, pg_temp.session_id(3) AS s3, pg_temp.session_id(6) AS bobs, gen_random_uuid() AS nobody \gset
SET LOCAL ROLE backend_api;

-- For the gateway: one session.
SELECT is(
    api.session_get(:'s1')::jsonb,
    jsonb_build_object(
        'device_session_id', :'s1', 'user_id', :'ann', 'kind', 'key', 'status', 'active',
        'client_public_key', 'AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=', 'created_at',
        to_char(transaction_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'revoked_at', NULL, 'revoke_reason', NULL),
    'the gateway gets what it needs to check a request');
SELECT throws_ok(format('SELECT api.session_get(%L)', :'nobody'), 'GX404', 'session_not_found', 'a session that is not there is not found');
SELECT throws_ok('SELECT api.session_get(NULL)', 'GX404', 'session_not_found', 'nor is none');
SELECT is(api.session_revoke(:'s1', '{"reason": "revoked_by_admin"}')::jsonb ->> 'revoke_reason', 'revoked_by_admin', 'the gateway revokes, with its reason');
SELECT is(api.session_get(:'s1')::jsonb ->> 'status', 'revoked', 'a revoked session says so');
SELECT is(
    api.session_revoke(:'s1', '{"reason": "logout"}')::jsonb, api.session_get(:'s1')::jsonb, 'revoking again answers the same and changes nothing');
SELECT is(api.session_revoke(:'s2', '{}')::jsonb ->> 'revoke_reason', 'logout', 'without a reason it is a logout');
SELECT is(api.session_revoke(:'s3', NULL)::jsonb ->> 'revoke_reason', 'logout', 'without a body too');
SELECT throws_ok(format('SELECT api.session_revoke(%L, NULL)', :'nobody'), 'GX404', 'session_not_found', 'a session that is not there cannot be revoked');
SELECT is(
    pg_temp.violated(format($$SELECT api.session_revoke(%L, '{"reason": "boredom"}')$$, :'bobs')), 'device_sessions_reason_is_known',
    'a reason is one that is known');
RESET ROLE;
SELECT set_eq(
    'SELECT device_session_id, reason FROM backend.push_pending',
    format($$VALUES (%L::uuid, 'revoked_by_admin'), (%L, 'logout'), (%L, 'logout')$$, :'s1', :'s2', :'s3'), 'each is told to the gateways once');
DELETE FROM backend.push_pending;

-- For the gateway: all of a person's.
SET LOCAL ROLE backend_api;
SELECT is(api.session_revoke_all(:'ann', '{"reason": "account_blocked"}')::jsonb, '{"revoked": 2}', 'the gateway revokes all, and hears how many');
SELECT is(api.session_revoke_all(:'ann', NULL)::jsonb, '{"revoked": 0}', 'again there are none');
SELECT is(api.session_revoke_all(:'bob', NULL)::jsonb, '{"revoked": 1}', 'somebody else''s were left alone');
SELECT is(api.session_get(:'bobs')::jsonb ->> 'revoke_reason', 'logout', 'without a reason it is a logout');
SELECT throws_ok(format('SELECT api.session_revoke_all(%L, NULL)', :'nobody'), 'GX404', 'account_not_found', 'of nobody there is nothing to revoke');
RESET ROLE;
SELECT set_eq(
    'SELECT user_id, device_session_id, reason FROM backend.push_pending',
    format($$VALUES (%L::uuid, NULL::uuid, 'account_blocked'), (%L, NULL, 'logout')$$, :'ann', :'bob'), 'the gateways are told once, of the person');
DELETE FROM backend.push_pending;
SELECT pg_temp.plant(format(
    $$UPDATE backend.device_sessions SET status = 'active', revoked_at = NULL, revoke_reason = NULL WHERE device_session_id = %L$$, :'bobs')) \g /dev/null

-- For the gateway: by a token.
INSERT INTO backend.device_sessions (user_id, kind, token_hash) VALUES (:'ann', 'token', sha256('token')) RETURNING device_session_id AS bearer \gset
SET LOCAL ROLE backend_api;
SELECT is(api.session_resolve('{}', sha256('token')), api.session_get(:'bearer'), 'a token leads to its session');
SELECT is(api.session_get(:'bearer')::jsonb -> 'kind' || (api.session_get(:'bearer')::jsonb -> 'client_public_key'), '["token", null]', 'which has no key');
SELECT throws_ok($$SELECT api.session_resolve('{}', sha256('other'))$$, 'GX404', 'session_not_found', 'another token leads nowhere');
SELECT throws_ok($$SELECT api.session_resolve('{}', NULL)$$, 'GX404', 'session_not_found', 'nor does none, whatever has no token');
SELECT api.session_revoke(:'bearer', NULL) \g /dev/null
SELECT is(api.session_resolve('{}', sha256('token'))::jsonb ->> 'status', 'revoked', 'a revoked session says so');

-- When sessions were seen.
RESET ROLE;
SELECT function_returns('api', 'sessions_seen', ARRAY['uuid[]', 'double precision[]'], 'integer', 'sessions_seen() says how many');
SELECT function_privs_are('api', 'sessions_seen', ARRAY['uuid[]', 'double precision[]'], r, p, format('%s: %s on sessions_seen()', r, p))
  FROM (VALUES ('backend_api', ARRAY['EXECUTE']), ('backend_worker', '{}'), ('backend_push', '{}')) AS t (r, p);
SELECT api.session_get(pg_temp.session_id(5)) AS before \gset
SELECT pg_temp.session_id(4) AS s4, pg_temp.session_id(5) AS s5 \gset
SET LOCAL ROLE backend_api;
SELECT is(api.sessions_seen(ARRAY[:'s5', :'s4', :'bearer', :'nobody', :'s5']::uuid[], ARRAY[1, 2, 0, 0, 30]), 0, 'a revoked session is not seen, nor one that is not there');
RESET ROLE;
SELECT pg_temp.plant($$UPDATE backend.device_sessions SET status = 'active', revoked_at = NULL, revoke_reason = NULL
                        WHERE device_session_id IN (pg_temp.session_id(4), pg_temp.session_id(5))$$) \g /dev/null
SELECT api.session_get(:'s5') AS before \gset
SET LOCAL ROLE backend_api;
SELECT is(api.sessions_seen(ARRAY[:'s5', :'s4', :'s5']::uuid[], ARRAY[1, 2, 30]), 2, 'others are, each once');
SELECT is(api.session_get(:'s5'), :'before', 'without a change of their bytes');
SELECT is(api.sessions_seen(ARRAY[:'s5', :'s4']::uuid[], ARRAY[0, -5]), 0, 'and not again within a minute');
RESET ROLE;
SELECT results_eq(
    format('SELECT backend.now() - last_seen_at FROM backend.device_sessions WHERE device_session_id IN (%L, %L) ORDER BY device_session_id', :'s4', :'s5'),
    $$VALUES (interval '2 seconds'), (interval '1 second')$$, 'the newest time counts');
UPDATE backend.clock SET clock_offset = '58.9 seconds';
SELECT is(api.sessions_seen(ARRAY[:'s4', :'s5']::uuid[], ARRAY[0, 0]), 1, 'a minute is a minute');
UPDATE backend.clock SET clock_offset = '59 seconds';
SELECT is(api.sessions_seen(ARRAY[:'s4', :'s5']::uuid[], ARRAY[0, 0]), 1, 'to the moment');
UPDATE backend.clock SET clock_offset = '0';
DELETE FROM backend.device_sessions WHERE device_session_id = :'bearer';
UPDATE backend.device_sessions SET last_seen_at = '2026-01-02T03:04:05Z' WHERE device_session_id = :'s5';
DELETE FROM backend.push_pending;

-- For a person: the list.
CREATE FUNCTION pg_temp.numbers(p_page text) RETURNS integer[] LANGUAGE sql
RETURN (SELECT coalesce(array_agg(right(i ->> 'device_session_id', 12)::integer ORDER BY n), '{}')
          FROM jsonb_array_elements(p_page::jsonb -> 'items') WITH ORDINALITY AS t(i, n));
SET LOCAL ROLE backend_api;
SELECT is(pg_temp.numbers(api.my_session_list(:'ann', 50, NULL)), ARRAY[5, 4, 3, 2, 1], 'a person sees their own sessions, newest first, revoked ones too');
SELECT is(api.my_session_list(:'ann', 50, NULL)::jsonb -> 'next_cursor', 'null', 'on one page when they fit');
SELECT is(
    (api.my_session_list(:'ann', 1, NULL)::jsonb -> 'items' -> 0),
    api.session_get(pg_temp.session_id(5))::jsonb || '{"last_seen_at": "2026-01-02T03:04:05.000000Z"}', 'each with when it was seen');
SELECT api.my_session_list(:'ann', 2, NULL) AS page1 \gset
SELECT api.my_session_list(:'ann', 2, :'page1'::jsonb ->> 'next_cursor') AS page2 \gset
SELECT api.my_session_list(:'ann', 2, :'page2'::jsonb ->> 'next_cursor') AS page3 \gset
SELECT is(pg_temp.numbers(:'page1'), ARRAY[5, 4], 'the first page');
SELECT is(pg_temp.numbers(:'page2'), ARRAY[3, 2], 'the second');
SELECT is(pg_temp.numbers(:'page3'), ARRAY[1], 'the last');
SELECT is(:'page3'::jsonb -> 'next_cursor', 'null', 'which says so');
SELECT api.my_session_list(:'ann', 3, NULL) AS page \gset
SELECT is(
    pg_temp.numbers(api.my_session_list(:'ann', 3, :'page'::jsonb ->> 'next_cursor')), ARRAY[2, 1], 'a page goes on after the last of the one before');
SELECT throws_ok(
    format('SELECT api.my_session_list(%L, 2, %L)', :'bob', :'page1'::jsonb ->> 'next_cursor'), 'GX400', 'invalid_cursor',
    'a cursor is of one person''s list');
SELECT throws_ok(format($$SELECT api.my_session_list(%L, 2, 'x')$$, :'ann'), 'GX400', 'invalid_cursor', 'and nothing else is one');
RESET ROLE;
-- Its making is no secret: a cursor that somebody makes up is refused like any other.
SELECT throws_ok(
    format('SELECT api.my_session_list(%L, 2, %L)', :'ann', backend.cursor_make('my_session_list:' || :'ann', 'no uuid')),
    'GX400', 'invalid_cursor', 'not even a well-made cursor to nowhere');

-- For a person: their own only.
SET LOCAL ROLE backend_api;
SELECT throws_ok(
    format('SELECT api.my_session_revoke(%L, %L)', :'ann', :'bobs'), 'GX404', 'session_not_found', 'somebody else''s session is not there');
SELECT throws_ok(
    format('SELECT api.my_session_revoke(%L, %L)', :'ann', :'nobody'), 'GX404', 'session_not_found', 'as if there were none');
SELECT is(api.session_get(:'bobs')::jsonb ->> 'status', 'active', 'and stays');
SELECT is(api.my_session_revoke(:'bob', :'bobs')::jsonb ->> 'revoke_reason', 'revoked_by_user', 'a person revokes their own');
SELECT is(api.my_session_revoke(:'bob', :'bobs')::jsonb, api.session_get(:'bobs')::jsonb, 'again changes nothing');
RESET ROLE;
INSERT INTO backend.device_sessions (user_id, kind, client_public_key) SELECT :'bob', 'key', decode(repeat('01', 32), 'hex') FROM generate_series(1, 2);
SET LOCAL ROLE backend_api;
SELECT is(api.my_session_revoke_all(:'bob')::jsonb, '{"revoked": 2}', 'a person revokes all of their own');
SELECT is(api.my_session_revoke_all(:'bob')::jsonb, '{"revoked": 0}', 'again there are none');
RESET ROLE;

-- For a person: those who may not.
CREATE TEMPORARY TABLE calls (name text, call text);
INSERT INTO calls VALUES
    ('my_session_list', 'SELECT api.my_session_list(%L, 50, NULL)'), ('my_session_revoke', 'SELECT api.my_session_revoke(%L, gen_random_uuid())'),
    ('my_session_revoke_all', 'SELECT api.my_session_revoke_all(%L)');
SELECT throws_ok(format(call, :'nobody'), 'GX404', 'account_not_found', format('%s is for somebody', name)) FROM calls;
INSERT INTO backend.sanction_records (user_id, code, action, reason, actor) VALUES (:'bob', 'login_block', 'apply', 'x', 'root') RETURNING sanction_record_id AS sanction \gset
INSERT INTO backend.sanction_active (user_id, code, sanction_record_id, reason) VALUES (:'bob', 'login_block', :'sanction', 'x');
SELECT throws_ok(format(call, :'bob'), 'GX403', 'sanctioned', format('%s is for somebody who may sign in', name)) FROM calls;
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'bob';
SELECT throws_ok(format(call, :'bob'), 'GX403', 'account_blocked', format('%s is for nobody who is blocked', name)) FROM calls;
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'bob';
SELECT throws_ok(format(call, :'bob'), 'GX403', 'account_deleted', format('%s is for nobody who is gone', name)) FROM calls;

SELECT * FROM finish();
ROLLBACK;
