-- Test galaxy-backend:backend/auth

BEGIN;
SELECT plan(65);
\ir ../helpers.psql

-- Attributes.
SELECT has_table('backend', t, format('there is %s', t)) FROM unnest(ARRAY['auth_challenges', 'blocked_emails']) AS t;
SELECT col_is_pk('backend', 'auth_challenges', 'challenge_id', 'a challenge has an id');
SELECT col_is_pk('backend', 'blocked_emails', 'email', 'an address is blocked once');
SELECT col_not_null('backend', t, c, format('%s.%s is always told', t, c))
  FROM (VALUES ('auth_challenges', 'email'), ('auth_challenges', 'source_hash'), ('auth_challenges', 'code_hash'), ('auth_challenges', 'attempts'), ('auth_challenges', 'requests'),
               ('auth_challenges', 'expires_at'), ('blocked_emails', 'actor')) AS t(t, c);
SELECT col_default_is('backend', 'auth_challenges', 'attempts', '0', 'nothing was compared at first');
SELECT has_index('backend', 'auth_challenges', 'auth_challenges_by_email', ARRAY['email', 'created_at'], 'the live ones of an address are found');
SELECT has_index('backend', 'auth_challenges', 'auth_challenges_by_expiry', ARRAY['expires_at'], 'those to be deleted are found');
SELECT volatility_is('backend', f, 'immutable', format('%s() is IMMUTABLE', f)) FROM unnest(ARRAY['email_normalise', 'code_hash']) AS f;

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM backend.auth_challenges', '42501', NULL, 'backend_api does not see the challenges');
SELECT throws_ok('DELETE FROM backend.blocked_emails', '42501', NULL, 'backend_api unblocks no address');
RESET ROLE;

-- Addresses.
SELECT is(backend.email_normalise(e), n, format('%s is %s', to_json(e), coalesce(n, 'no address')))
  FROM (VALUES
    ('ann@example.org', 'ann@example.org'),
    (E' \tAnn.B+c@Example.ORG\r\n', 'ann.b+c@example.org'),
    ('o''brien@example.org', 'o''brien@example.org'),
    ('!#$%&*+/=?^_`{|}~-@example.org', '!#$%&*+/=?^_`{|}~-@example.org'),
    ('a.!#$%&*+/=?^_`{|}~-@example.org', 'a.!#$%&*+/=?^_`{|}~-@example.org'),
    ('1@2.de', '1@2.de'),
    ('a@xn--bcher-kva.example', 'a@xn--bcher-kva.example'),
    ('a@b.c.d.example', 'a@b.c.d.example'),
    (repeat('a', 64) || '@example.org', repeat('a', 64) || '@example.org'),
    (repeat('a', 65) || '@example.org', NULL),
    ('a@' || repeat('a', 63) || '.org', 'a@' || repeat('a', 63) || '.org'),
    ('a@' || repeat('a', 64) || '.org', NULL),
    ('a@' || repeat(repeat('a', 49) || '.', 5) || 'de', 'a@' || repeat(repeat('a', 49) || '.', 5) || 'de'),
    ('abc@' || repeat(repeat('a', 49) || '.', 5) || 'd', NULL),
    ('', NULL), ('@', NULL), ('ann', NULL), ('ann@', NULL), ('@example.org', NULL), ('ann@localhost', NULL),
    ('a..b@example.org', NULL), ('.a@example.org', NULL), ('a.@example.org', NULL), ('a@b@example.org', NULL),
    ('a@example..org', NULL), ('a@-example.org', NULL), ('a@example-.org', NULL), ('a@example.org.', NULL), ('a@127.0.0.1', NULL),
    ('a@[127.0.0.1]', NULL), ('"a b"@example.org', NULL), ('a b@example.org', NULL), (E'a@example.org\nBcc: b@example.org', NULL)
  ) AS t(e, n);
SELECT is(backend.email_normalise(NULL), NULL, 'null is no address');
SELECT is(backend.email_normalise('jürgen@example.org'), NULL, 'what needs more than ASCII is none');
SELECT is(backend.email_normalise(U&'\212Aelvin@example.org'), NULL, 'even if its lower case does not: the Kelvin sign is no k');

-- Codes.
SELECT '0197f3a2-0000-7000-8000-000000000001'::uuid AS one, '0197f3a2-0000-7000-8000-000000000002'::uuid AS two \gset
SELECT is(
    backend.code_hash(:'one', '\x01'), sha256(decode('0197f3a2000070008000000000000001' || '01', 'hex')),
    'what is kept of a code is SHA-256 over the challenge''s id and what the app made of it');
SELECT isnt(backend.code_hash(:'one', '\x01'), backend.code_hash(:'two', '\x01'), 'equal codes of two challenges differ');

-- Constraints.
SELECT is(pg_temp.violated(format('INSERT INTO backend.%s', v)), c, d)
  FROM (VALUES
    ($$auth_challenges (email, source_hash, code_hash, expires_at) VALUES ('Ann@example.org', sha256(''), sha256(''), backend.now() + '1 min')$$,
        'auth_challenges_email_is_normalised', 'an address is in lower case'),
    (format($$auth_challenges (email, source_hash, code_hash, expires_at) VALUES (%L, sha256(''), sha256(''), backend.now() + '1 min')$$, repeat('a', 255)),
        'auth_challenges_email_is_normalised', 'an address is not too long'),
    ($$auth_challenges (email, source_hash, code_hash, expires_at) VALUES ('a@example.org', sha256(''), '\x01', backend.now() + '1 min')$$,
        'auth_challenges_code_hash_has_32_bytes', 'a code is hashed'),
    ($$auth_challenges (email, source_hash, code_hash, expires_at) VALUES ('a@example.org', sha256(''), '123456', backend.now() + '1 min')$$,
        'auth_challenges_code_hash_has_32_bytes', 'and never kept'),
    ($$auth_challenges (email, source_hash, code_hash, expires_at) VALUES ('a@example.org', sha256(''), sha256(''), backend.now())$$,
        'auth_challenges_expire_after_they_start', 'a challenge lives for a while'),
    ($$auth_challenges (email, source_hash, code_hash, expires_at) VALUES ('a@example.org', '192.0.2.0/24', sha256(''), backend.now() + '1 min')$$,
        'auth_challenges_source_hash_has_32_bytes', 'and no network'),
    ($$blocked_emails (email, actor) VALUES ('Ann@example.org', 'root')$$, 'blocked_emails_email_is_normalised', 'a blocked address is in lower case'),
    (format($$blocked_emails (email, actor) VALUES (%L, 'root')$$, repeat('a', 255)), 'blocked_emails_email_is_normalised', 'and not too long'),
    ($$blocked_emails (email, actor) VALUES ('a@example.org', 'root'), ('a@example.org', 'root')$$, 'blocked_emails_pkey', 'an address is blocked once')
  ) AS t(v, c, d);

SELECT * FROM finish();
ROLLBACK;
