-- Test galaxy-backend:api/administrators

BEGIN;
SELECT plan(141);
\ir ../helpers.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], result text, volatility text);
INSERT INTO functions VALUES
    ('administrator_credential', ARRAY['text', 'inet'], 'text', 'stable'), ('administrator_attempt_failed', ARRAY['text', 'inet'], 'void', 'volatile'),
    ('administrator_used', ARRAY['text', 'inet'], 'void', 'volatile'), ('administrator_create', ARRAY['text', 'jsonb', 'text'], 'api.reply', 'volatile'),
    ('administrator_disable', ARRAY['text', 'text'], 'text', 'volatile'), ('administrator_enable', ARRAY['text', 'text'], 'text', 'volatile'),
    ('administrator_reset_password', ARRAY['text', 'text', 'jsonb', 'text'], 'text', 'volatile'), ('administrator_bootstrap', ARRAY['text', 'text'], 'boolean', 'volatile'),
    ('administrator_list', ARRAY['text', 'integer', 'text'], 'text', 'stable'), ('administrator_get', ARRAY['text', 'text'], 'text', 'stable');
SELECT function_returns('api', name, arguments, result, format('%s() is %s', name, result)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

CREATE FUNCTION pg_temp.hash(p_username text) RETURNS text LANGUAGE sql
RETURN api.administrator_credential(p_username, NULL)::jsonb ->> 'password_hash';

-- The first one.
SELECT '$2b$12$' || repeat('x', 53) AS hash, '$2b$12$' || repeat('y', 53) AS other \gset
SET LOCAL ROLE backend_api;
SELECT is(pg_temp.violated(format('SELECT api.administrator_bootstrap(%L, %L)', 'a b', :'hash')), 'admin_accounts_username_is_plain', 'a bad name is refused');
SELECT is(pg_temp.violated($$SELECT api.administrator_bootstrap('root', 'secret')$$), 'admin_accounts_password_is_bcrypt', 'a password is refused');
SELECT is(api.administrator_bootstrap('root', :'hash'), true, 'where there is no administrator the first one is made');
SELECT is(api.administrator_bootstrap('root', :'other'), false, 'again changes nothing');
SELECT is(api.administrator_bootstrap('eve', :'other'), false, 'and nobody adds themself');
SELECT is(pg_temp.hash('root'), :'hash', 'the hash is what the password is compared with');
SELECT is(pg_temp.hash('eve'), NULL, 'nobody has none');
SELECT is(pg_temp.hash(NULL), NULL, 'not even null');
RESET ROLE;
UPDATE backend.admin_accounts SET disabled_at = backend.now();
SET LOCAL ROLE backend_api;
SELECT is(pg_temp.hash('root'), NULL, 'nor has one who is disabled');
SELECT is(api.administrator_bootstrap('eve', :'other'), false, 'who is an administrator still: nobody takes their place');
SELECT throws_ok($$SELECT api.administrator_list('root', 50, NULL)$$, 'GX401', 'unauthorized', 'one who is disabled sees no list');
SELECT throws_ok($$SELECT api.administrator_get('root', 'root')$$, 'GX401', 'unauthorized', 'nor themself');
RESET ROLE;
UPDATE backend.admin_accounts SET disabled_at = NULL;
INSERT INTO backend.admin_accounts (username, password_hash, disabled_at)
VALUES ('zoe', :'hash', NULL), ('bob', :'hash', '2026-01-02T03:04:05Z'), ('ann', :'hash', NULL);

-- The list.
CREATE FUNCTION pg_temp.names(p_page text) RETURNS text[] LANGUAGE sql
RETURN (SELECT array_agg(i ->> 'username' ORDER BY n) FROM jsonb_array_elements(p_page::jsonb -> 'items') WITH ORDINALITY AS t(i, n));
SET LOCAL ROLE backend_api;
SELECT is(pg_temp.names(api.administrator_list('root', 50, NULL)), ARRAY['ann', 'bob', 'root', 'zoe'], 'an administrator sees all of them, by name');
SELECT is(pg_temp.names(api.administrator_list('root', 1, NULL)), ARRAY['ann'], 'the first of them first');
SELECT api.administrator_list('root', 3, NULL) AS page1 \gset
SELECT api.administrator_list('root', 3, :'page1'::jsonb ->> 'next_cursor') AS page2 \gset
SELECT is(pg_temp.names(:'page1'), ARRAY['ann', 'bob', 'root'], 'the first page');
SELECT is(pg_temp.names(:'page2'), ARRAY['zoe'], 'the last');
SELECT is(:'page2'::jsonb -> 'next_cursor', 'null', 'which says so');
SELECT is(:'page1'::jsonb -> 'items' -> 1 ->> 'disabled_at', '2026-01-02T03:04:05.000000Z', 'with who is disabled');
SELECT unalike(:'page1'::text, '%$2b$%', 'without their hashes');
SELECT throws_ok($$SELECT api.administrator_list('root', 3, 'x')$$, 'GX400', 'invalid_cursor', 'a cursor is one');
SELECT throws_ok($$SELECT api.administrator_list('nobody', 3, NULL)$$, 'GX401', 'unauthorized', 'nobody sees a list');
SELECT throws_ok($$SELECT api.administrator_list(NULL, 3, NULL)$$, 'GX401', 'unauthorized', 'nor does null');

-- One.
SELECT is(api.administrator_get('root', 'bob')::jsonb, :'page1'::jsonb -> 'items' -> 1, 'one looks as in the list');
SELECT throws_ok($$SELECT api.administrator_get('root', 'eve')$$, 'GX404', 'administrator_not_found', 'one who is not there is not found');
SELECT throws_ok($$SELECT api.administrator_get('nobody', 'bob')$$, 'GX401', 'unauthorized', 'nobody sees one');
SELECT throws_ok($$SELECT api.administrator_get('nobody', 'eve')$$, 'GX401', 'unauthorized', 'nor learns who is there');

-- Another one.
SELECT r.status, r.body, r.location FROM api.administrator_create('root', '{"username": "carl"}', :'other') AS r \gset
SELECT is(:status, 201, 'an administrator makes another');
SELECT is(:'body'::jsonb, api.administrator_get('root', 'carl')::jsonb, 'who is shown');
SELECT is(:'location'::text, '/api/v1/admin/admin-accounts/carl', 'and where');
SELECT is(pg_temp.hash('carl'), :'other', 'with the password that was given');
SELECT is(:'body'::jsonb - 'created_at', '{"username": "carl", "disabled_at": null, "last_used_at": null}', 'enabled, and not used yet');
SELECT is(pg_temp.violated(format($$SELECT api.administrator_create('root', '{"username": "carl"}', %L)$$, :'hash')), 'admin_accounts_pkey', 'a name is one administrator''s');
SELECT is(pg_temp.hash('carl'), :'other', 'who keeps their password');
SELECT throws_ok(format($$SELECT api.administrator_create('nobody', '{"username": "dora"}', %L)$$, :'hash'), 'GX401', 'unauthorized', 'nobody makes one');
SELECT throws_ok(format($$SELECT api.administrator_create('bob', '{"username": "dora"}', %L)$$, :'hash'), 'GX401', 'unauthorized', 'nor does one who is disabled');

-- Another password.
SELECT is(api.administrator_reset_password('root', 'carl', '{}', :'hash'), NULL, 'there is nothing to say');
SELECT is(pg_temp.hash('carl'), :'hash', 'and another password');
SELECT throws_ok(format($$SELECT api.administrator_reset_password('root', 'eve', '{}', %L)$$, :'hash'), 'GX404', 'administrator_not_found', 'nobody gets one');
SELECT throws_ok(format($$SELECT api.administrator_reset_password('nobody', 'eve', '{}', %L)$$, :'hash'), 'GX401', 'unauthorized', 'and nobody gives one');
SELECT is(pg_temp.violated($$SELECT api.administrator_reset_password('root', 'carl', '{}', 'secret')$$), 'admin_accounts_password_is_bcrypt', 'never in clear');

-- Disabled and enabled.
SELECT is(api.administrator_disable('root', 'carl')::jsonb ->> 'disabled_at', backend_now, 'an administrator is disabled') FROM (SELECT api.administrator_get('root', 'carl')::jsonb ->> 'created_at' AS backend_now) AS t;
SELECT is(pg_temp.hash('carl'), NULL, 'and let in no more');
SELECT throws_ok($$SELECT api.administrator_list('carl', 3, NULL)$$, 'GX401', 'unauthorized', 'nowhere');
SELECT is(api.administrator_disable('root', 'bob')::jsonb ->> 'disabled_at', '2026-01-02T03:04:05.000000Z', 'one who is disabled is so since then');
SELECT is(api.administrator_enable('root', 'carl')::jsonb ->> 'disabled_at', NULL, 'they are enabled again');
SELECT is(pg_temp.hash('carl'), :'hash', 'with their password');
SELECT is(api.administrator_enable('root', 'carl')::jsonb, api.administrator_get('root', 'carl')::jsonb, 'one who is enabled stays so');
SELECT throws_ok(format('SELECT api.%I(%L, %L)', f, 'root', 'eve'), 'GX404', 'administrator_not_found', f || '(): nobody is not found') FROM unnest(ARRAY['administrator_disable', 'administrator_enable']) AS f;
SELECT throws_ok(format('SELECT api.%I(%L, %L)', f, 'bob', 'root'), 'GX401', 'unauthorized', f || '(): who is disabled may not') FROM unnest(ARRAY['administrator_disable', 'administrator_enable']) AS f;
SELECT api.administrator_disable('root', n) FROM unnest(ARRAY['ann', 'carl', 'zoe']) AS n \g /dev/null
SELECT throws_ok($$SELECT api.administrator_disable('root', 'root')$$, 'GX409', 'last_administrator', 'the last one cannot be');
SELECT is(api.administrator_disable('root', 'ann')::jsonb ->> 'username', 'ann', 'one who is disabled can be, also by the last');
SELECT api.administrator_enable('root', 'zoe') \g /dev/null
SELECT isnt(api.administrator_disable('root', 'root')::jsonb ->> 'disabled_at', NULL, 'where there is another one may go');
RESET ROLE;

-- What is written down: what was done, and no password.
SELECT results_eq(
    'SELECT admin, action, object_type, object_id, details FROM backend.audit_log ORDER BY audit_id LIMIT 4',
    $$VALUES ('root', 'administrator_create', 'administrator', 'carl', NULL::jsonb), ('root', 'administrator_reset_password', 'administrator', 'carl', '{}'),
             ('root', 'administrator_disable', 'administrator', 'carl', NULL), ('root', 'administrator_disable', 'administrator', 'bob', NULL)$$,
    'every command is in the audit log');
SELECT is((SELECT count(*) FROM backend.audit_log), 12::bigint, 'and nothing that was refused');
SELECT is_empty($$SELECT FROM backend.audit_log AS l WHERE l::text ~ '\$2b\$'$$, 'nor a hash');
UPDATE backend.admin_accounts SET disabled_at = NULL, last_used_at = NULL;

-- Wrong passwords.
CREATE FUNCTION pg_temp.credential(p_username text, p_ip inet) RETURNS jsonb LANGUAGE sql
RETURN api.administrator_credential(p_username, p_ip)::jsonb;
CREATE FUNCTION pg_temp.fails(p_username text, p_ip inet, p_count integer) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    SELECT api.administrator_attempt_failed(p_username, p_ip) FROM generate_series(1, p_count);
END;
SET LOCAL ROLE backend_api;
SELECT is(
    pg_temp.credential('root', '192.0.2.1'), jsonb_build_object('password_hash', :'hash', 'source', '192.0.2.1/32', 'retry_after', NULL, 'compare_after', NULL, 'is_to_be_noted', true),
    'at first nothing was wrong, nor right');
SELECT pg_temp.fails('root', '192.0.2.1', 9) \g /dev/null
SELECT is(pg_temp.credential('root', '192.0.2.1') -> 'retry_after', 'null', 'nine are allowed');
SELECT pg_temp.fails('root', '192.0.2.1', 1) \g /dev/null
SELECT is(pg_temp.credential('root', '192.0.2.1') -> 'retry_after', '900', 'after the tenth one waits');
SELECT is(pg_temp.credential('root', '192.0.2.2') -> 'retry_after', 'null', 'who is elsewhere does not');
SELECT is(pg_temp.credential('zoe', '192.0.2.1') -> 'retry_after', 'null', 'nor does another name there');
SELECT pg_temp.fails('nobody', '192.0.2.1', 10) \g /dev/null
SELECT is(pg_temp.credential('nobody', '192.0.2.1') -> 'retry_after', '900', 'nobody waits as well');
SELECT pg_temp.fails('name-' || n, '192.0.2.1', 1) FROM generate_series(1, 9) AS n \g /dev/null
SELECT is(pg_temp.credential('zoe', '192.0.2.1') -> 'compare_after', 'null', 'twenty-nine for any names are compared');
SELECT pg_temp.fails('zoe', '192.0.2.1', 1) \g /dev/null
SELECT is(pg_temp.credential(n, '192.0.2.1') -> 'compare_after', '900', 'after the thirtieth nothing is') FROM unnest(ARRAY['zoe', 'root', '']) AS n;
SELECT api.administrator_used('root', '192.0.2.1') \g /dev/null
SELECT is(pg_temp.credential('root', '192.0.2.1') -> 'compare_after', '900', 'whoever was right before');
SELECT pg_temp.fails('root', '192.0.2.1', 10) \g /dev/null
SELECT is(pg_temp.credential('zoe', '192.0.2.2') -> 'compare_after', 'null', 'elsewhere it is');
SELECT is(pg_temp.credential('zoe', '2001:db8::1') -> 'source', '"2001:db8::/64"', 'of IPv6 a network is one address');
RESET ROLE;
UPDATE backend.clock SET clock_offset = '14 minutes 58.5 seconds';
SET LOCAL ROLE backend_api;
SELECT pg_temp.fails('root', '192.0.2.1', 1) \g /dev/null
SELECT is(pg_temp.credential('root', '192.0.2.1') -> 'retry_after', '2', 'to the end of the window and no longer, in whole seconds');
RESET ROLE;
UPDATE backend.clock SET clock_offset = '15 minutes';
SET LOCAL ROLE backend_api;
SELECT is(pg_temp.credential('root', '192.0.2.1') -> 'retry_after', 'null', 'then it begins anew');
SELECT pg_temp.fails('root', '192.0.2.1', 9) \g /dev/null
SELECT is(pg_temp.credential('root', '192.0.2.1') -> 'retry_after', 'null', 'from nothing');
RESET ROLE;
UPDATE backend.clock SET clock_offset = '0';
DELETE FROM backend.admin_attempts;
SET LOCAL ROLE backend_api;

-- Right ones.
SELECT pg_temp.fails('root', '192.0.2.1', 9), pg_temp.fails('root', '192.0.2.2', 9) \g /dev/null
SELECT api.administrator_used('root', '192.0.2.1') \g /dev/null
SELECT pg_temp.fails('root', a::inet, 1) FROM unnest(ARRAY['192.0.2.1', '192.0.2.2']) AS a \g /dev/null
SELECT is(pg_temp.credential('root', '192.0.2.1') -> 'retry_after', 'null', 'a right one makes the wrong ones forgotten');
SELECT is(pg_temp.credential('root', '192.0.2.2') -> 'retry_after', '900', 'there and not elsewhere');
SELECT is(pg_temp.credential('root', '192.0.2.1') -> 'is_to_be_noted', 'true', 'after a wrong one a right one is noted');
SELECT is(pg_temp.credential('root', '192.0.2.3') -> 'is_to_be_noted', 'false', 'else once a minute');
RESET ROLE;
SELECT is((SELECT last_used_at FROM backend.admin_accounts WHERE username = 'root'), backend.now(), 'when it was is written down');
UPDATE backend.clock SET clock_offset = '1 minute' - interval '1 microsecond';
SELECT api.administrator_used('root', '192.0.2.1') \g /dev/null
SELECT is((SELECT last_used_at FROM backend.admin_accounts WHERE username = 'root'), backend.now() - interval '1 minute' + interval '1 microsecond', 'not more than once a minute');
UPDATE backend.clock SET clock_offset = '1 minute';
SELECT is(pg_temp.credential('root', '192.0.2.3') -> 'is_to_be_noted', 'true', 'after that again');
SELECT api.administrator_used('root', '192.0.2.1') \g /dev/null
SELECT is((SELECT last_used_at FROM backend.admin_accounts WHERE username = 'root'), backend.now(), 'and so it is');
UPDATE backend.clock SET clock_offset = '0';

SELECT * FROM finish();
ROLLBACK;
