-- Test galaxy-backend:api/blocked_emails

BEGIN;
SELECT plan(38);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], returns text, volatility text);
INSERT INTO functions VALUES
    ('blocked_email_list', ARRAY['text', 'integer', 'text']::name[], 'text', 'stable'),
    ('blocked_email_create', ARRAY['text', 'jsonb']::name[], 'api.reply', 'volatile'),
    ('blocked_email_delete', ARRAY['text', 'text']::name[], 'text', 'volatile');
SELECT function_returns('api', name, arguments, returns, format('%s() answers %s', name, returns)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;
INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT pg_temp.person('ann') AS ann \gset
SET LOCAL ROLE backend_api;
SELECT (r).status, (r).body, (r).location FROM (SELECT api.blocked_email_create('root', '{"email": " Ann@Example.ORG ", "reason": "Rude"}') AS r OFFSET 0) AS t \gset
RESET ROLE;
SELECT is(:'status' || :'location', '201/api/v1/admin/blocked-emails/ann@example.org', 'an address is blocked, as sign-in knows it');
SELECT is(:'body'::jsonb, jsonb_build_object('email', 'ann@example.org', 'reason', 'Rude', 'actor', 'root', 'created_at', backend.ts(backend.now())), 'and shown');
SELECT throws_ok($$SELECT api.email_code_send('{"email": "ann@example.org"}', '1', sha256('1'), NULL)$$, 'GX400', 'email_blocked', 'it gets no code');
SELECT lives_ok(format('SELECT api.my_account_get(%L)', :'ann'), 'an account that has it goes on');
SELECT throws_ok($$SELECT api.blocked_email_create('root', '{"email": "ann@example.ORG"}')$$, 'GX409', 'conflict', 'it is blocked once');
SELECT throws_ok($$SELECT api.blocked_email_create('root', '{"email": "nobody"}')$$, 'GX400', 'invalid_request', 'what is no address is not');
SELECT is((api.blocked_email_create('root', jsonb_build_object('email', e))).location, '/api/v1/admin/blocked-emails/' || l, 'where it is found is a path')
  FROM (VALUES ('a/b?c#d%e@example.org', 'a%2Fb%3Fc%23d%25e@example.org'), ('o''hara+x@example.org', 'o%27hara+x@example.org')) AS t(e, l);
SELECT is(
    (SELECT string_agg(i ->> 'email', ' ' ORDER BY n) FROM jsonb_array_elements(api.blocked_email_list('root', 50, NULL)::jsonb -> 'items') WITH ORDINALITY AS t(i, n)),
    'a/b?c#d%e@example.org ann@example.org o''hara+x@example.org', 'they are listed in their order');
SELECT api.blocked_email_list('root', 1, NULL)::jsonb ->> 'next_cursor' AS cursor \gset
SELECT is(api.blocked_email_list('root', 1, :'cursor')::jsonb -> 'items' -> 0 ->> 'email', 'ann@example.org', 'in pages');
SELECT throws_ok($$SELECT api.blocked_email_list('root', 1, '00')$$, 'GX400', 'invalid_cursor', 'of their own');
SELECT is(api.blocked_email_delete('root', 'ANN@example.org'), NULL, 'an address is let go');
SELECT lives_ok($$SELECT api.email_code_send('{"email": "ann@example.org"}', '1', sha256('1'), NULL)$$, 'and gets a code');
SELECT throws_ok(format('SELECT api.blocked_email_delete(''root'', %L)', e), 'GX404', 'blocked_email_not_found', 'what is not blocked is not let go') FROM unnest(ARRAY['ann@example.org', 'nobody']) AS e;
SELECT throws_ok(c, 'GX401', 'unauthorized', 'all this is for administrators')
  FROM unnest(ARRAY[$$SELECT api.blocked_email_list('eve', 1, NULL)$$, $$SELECT api.blocked_email_create('eve', '{"email": "x@example.org"}')$$, $$SELECT api.blocked_email_delete('eve', 'x@example.org')$$]) AS c;
SELECT results_eq(
    $$SELECT action COLLATE "C", object_id = encode(sha256('ann@example.org'), 'hex'), count(*) FROM backend.audit_log GROUP BY 1, 2 ORDER BY 1, 2$$,
    $$VALUES ('blocked_email_create' COLLATE "C", false, 2::bigint), ('blocked_email_create', true, 1), ('blocked_email_delete', true, 1)$$, 'the log knows an address by its hash');
SELECT is((SELECT count(*) FROM backend.audit_log AS l WHERE to_jsonb(l)::text ~ 'example.org'), 0::bigint, 'only');

SELECT * FROM finish();
ROLLBACK;
