-- Test galaxy-backend:backend/administrators

BEGIN;
SELECT plan(47);
\ir ../helpers.psql

-- Attributes.
SELECT has_table('backend', 'admin_accounts', 'there is admin_accounts');
SELECT col_is_pk('backend', 'admin_accounts', 'username', 'a name is one administrator''s');
SELECT col_not_null('backend', 'admin_accounts', 'password_hash', 'who has a password');
SELECT volatility_is('backend', f, 'stable', format('%s() is STABLE', f)) FROM unnest(ARRAY['administrator_json', 'administrator_require', 'administrator_find', 'admin_attempts_key', 'admin_attempts_wait']) AS f;

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
    ('eve', '$1$12$' || repeat('x', 53), 'admin_accounts_password_is_bcrypt', 'a hash is bcrypt''s'),
    ('eve', '$2b$11$' || repeat('x', 53), 'admin_accounts_password_is_bcrypt', 'a hash is not cheaper than it must be'),
    ('eve', '$2b$13$' || repeat('x', 53), 'admin_accounts_password_is_bcrypt', 'nor dearer, which would tell who is there')
  ) AS t(u, h, c, d);

-- Wrong passwords.
SELECT columns_are('backend', 'admin_attempts', ARRAY['key_hash', 'failures', 'expires_at', 'created_at', 'updated_at'],
    'wrong passwords are counted, without a name');
SELECT has_index('backend', 'admin_attempts', 'admin_attempts_by_expiry', ARRAY['expires_at'], 'those to be deleted are found');
SELECT is(pg_temp.violated(format('INSERT INTO backend.admin_attempts (key_hash, failures, expires_at) VALUES %s', v)), c, d)
  FROM (VALUES
    ($$(sha256(''), 1, 'infinity')$$, 'nothing', 'a wrong one is counted'),
    ($$(sha256(''), 1, 'infinity')$$, 'admin_attempts_pkey', 'in one row'),
    ($$('root', 1, 'infinity')$$, 'admin_attempts_key_hash_has_32_bytes', 'a key is a hash'),
    ($$(sha256('a'), 0, 'infinity')$$, 'admin_attempts_failures_are_positive', 'a row says of something')
  ) AS t(v, c, d);
SELECT is(backend.admin_attempts_key(n, a::inet) = backend.admin_attempts_key('root', '192.0.2.1'), e, d)
  FROM (VALUES
    ('root', '192.0.2.1', true, 'a name and an address are what is counted for'), ('root', '192.0.2.2', false, 'the next address is another'),
    ('ROOT', '192.0.2.1', false, 'so is the next name'), (NULL, '192.0.2.1', false, 'and any name'), ('root', '::ffff:192.0.2.1', true, 'an address has one notation'), ('root', NULL, false, 'no address is one too')
  ) AS t(n, a, e, d);
SELECT is(
    backend.admin_attempts_key('root', '2001:db8::1'), backend.admin_attempts_key('root', '2001:db8::ffff:1'), 'of IPv6 a network is one host''s');
SELECT is((backend.administrator_find('root')).username, 'root', 'an administrator is found');
SELECT throws_ok($$SELECT backend.administrator_find('eve')$$, 'GX404', 'administrator_not_found', 'nobody is not');

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
