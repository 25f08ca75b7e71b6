-- Test galaxy-backend:backend/administrators

BEGIN;
SELECT plan(27);
\ir ../helpers.psql

-- Attributes.
SELECT has_table('backend', 'admin_accounts', 'there is admin_accounts');
SELECT col_is_pk('backend', 'admin_accounts', 'username', 'a name is one administrator''s');
SELECT col_not_null('backend', 'admin_accounts', 'password_hash', 'who has a password');
SELECT volatility_is('backend', f, 'stable', format('%s() is STABLE', f)) FROM unnest(ARRAY['administrator_json', 'administrator_require']) AS f;

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM backend.admin_accounts', '42501', NULL, 'backend_api does not see the administrators');
SELECT throws_ok($$UPDATE backend.admin_accounts SET disabled_at = NULL$$, '42501', NULL, 'and enables none');
SELECT throws_ok($$SELECT backend.administrator_require('root')$$, '42501', NULL, 'and does not judge them');
RESET ROLE;

-- Constraints.
SELECT is(pg_temp.violated(format('INSERT INTO backend.admin_accounts (username, password_hash) VALUES (%L, %L)', u, h)), c, d)
  FROM (VALUES
    ('root', '$2b$12$' || repeat('x', 53), 'nothing', 'an administrator has a name and a bcrypt hash'),
    ('Root.2-x_y', '$2a$12$' || repeat('x', 53), 'nothing', 'a name has letters, digits and a few signs'),
    ('root', '$2b$12$' || repeat('x', 53), 'admin_accounts_pkey', 'a name is one administrator''s'),
    ('', '$2b$12$' || repeat('x', 53), 'admin_accounts_username_is_plain', 'a name is something'),
    ('a:b', '$2b$12$' || repeat('x', 53), 'admin_accounts_username_is_plain', 'a name has no colon, which ends it in HTTP Basic'),
    ('a b', '$2b$12$' || repeat('x', 53), 'admin_accounts_username_is_plain', 'a name has no space'),
    ('-a', '$2b$12$' || repeat('x', 53), 'admin_accounts_username_is_plain', 'a name begins with a letter or a digit'),
    (repeat('a', 65), '$2b$12$' || repeat('x', 53), 'admin_accounts_username_is_plain', 'a name is not too long'),
    ('eve', 'secret', 'admin_accounts_password_is_bcrypt', 'a password is not kept'),
    ('eve', '$2b$12$' || repeat('x', 52), 'admin_accounts_password_is_bcrypt', 'a hash is whole'),
    ('eve', '$1$12$' || repeat('x', 53), 'admin_accounts_password_is_bcrypt', 'a hash is bcrypt''s')
  ) AS t(u, h, c, d);

-- Who is an administrator.
SELECT lives_ok($$SELECT backend.administrator_require('root')$$, 'an administrator is one');
SELECT throws_ok($$SELECT backend.administrator_require('ROOT')$$, 'GX401', 'unauthorized', 'a name is exact');
SELECT throws_ok($$SELECT backend.administrator_require('nobody')$$, 'GX401', 'unauthorized', 'nobody is none');
SELECT throws_ok($$SELECT backend.administrator_require(NULL)$$, 'GX401', 'unauthorized', 'and neither is null');
UPDATE backend.admin_accounts SET disabled_at = backend.now() WHERE username = 'root';
SELECT throws_ok($$SELECT backend.administrator_require('root')$$, 'GX401', 'unauthorized', 'who is disabled is none');
UPDATE backend.admin_accounts SET disabled_at = NULL WHERE username = 'root';
SELECT lives_ok($$SELECT backend.administrator_require('root')$$, 'until they are enabled again');

-- What an administrator looks like.
UPDATE backend.admin_accounts SET last_used_at = '2026-01-02T03:04:05Z', disabled_at = '2026-02-03T04:05:06Z' WHERE username = 'root';
SELECT is(
    (SELECT backend.administrator_json(a) FROM backend.admin_accounts AS a WHERE username = 'root'),
    jsonb_build_object('username', 'root', 'disabled_at', '2026-02-03T04:05:06.000000Z', 'last_used_at', '2026-01-02T03:04:05.000000Z',
                       'created_at', backend.ts(backend.now())),
    'an administrator is shown as the contract says, without the hash');
SELECT is(
    (SELECT backend.administrator_json(a) -> 'disabled_at' FROM backend.admin_accounts AS a WHERE username = 'Root.2-x_y'), 'null',
    'one who was never disabled says so');

SELECT * FROM finish();
ROLLBACK;
