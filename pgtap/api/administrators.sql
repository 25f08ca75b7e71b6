-- Test galaxy-backend:api/administrators

BEGIN;
SELECT plan(50);
\ir ../helpers.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], result text, volatility text);
INSERT INTO functions VALUES
    ('administrator_credential', ARRAY['text'], 'text', 'stable'), ('administrator_bootstrap', ARRAY['text', 'text'], 'boolean', 'volatile'),
    ('administrator_list', ARRAY['text', 'integer', 'text'], 'text', 'stable'), ('administrator_get', ARRAY['text', 'text'], 'text', 'stable');
SELECT function_returns('api', name, arguments, result, format('%s() is %s', name, result)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

-- The first one.
SELECT '$2b$12$' || repeat('x', 53) AS hash, '$2b$12$' || repeat('y', 53) AS other \gset
SET LOCAL ROLE backend_api;
SELECT is(pg_temp.violated(format('SELECT api.administrator_bootstrap(%L, %L)', 'a b', :'hash')), 'admin_accounts_username_is_plain', 'a bad name is refused');
SELECT is(pg_temp.violated($$SELECT api.administrator_bootstrap('root', 'secret')$$), 'admin_accounts_password_is_bcrypt', 'a password is refused');
SELECT is(api.administrator_bootstrap('root', :'hash'), true, 'where there is no administrator the first one is made');
SELECT is(api.administrator_bootstrap('root', :'other'), false, 'again changes nothing');
SELECT is(api.administrator_bootstrap('eve', :'other'), false, 'and nobody adds themself');
SELECT is(api.administrator_credential('root'), :'hash', 'the hash is what the password is compared with');
SELECT is(api.administrator_credential('eve'), NULL, 'nobody has none');
SELECT is(api.administrator_credential(NULL), NULL, 'not even null');
RESET ROLE;
UPDATE backend.admin_accounts SET disabled_at = backend.now();
SET LOCAL ROLE backend_api;
SELECT is(api.administrator_credential('root'), NULL, 'nor has one who is disabled');
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
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
