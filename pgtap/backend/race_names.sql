-- Test galaxy-backend:backend/race_names

BEGIN;
SELECT plan(83);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes.
SELECT has_table('backend', 'race_names', 'there is race_names');
SELECT col_is_pk('backend', 'race_names', 'race_name_id', 'a claim to a name has an id');
SELECT fk_ok('backend', 'race_names', 'user_id', 'backend', 'accounts', 'user_id', 'it is a person''s');
SELECT col_not_null('backend', 'race_names', c, format('%s is always told', c)) FROM unnest(ARRAY['canonical', 'race_name', 'user_id', 'tier']) AS c;
SELECT index_is_unique('backend', 'race_names', 'race_names_one_holder', 'a name has one holder');
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('race_name_canonical', 'immutable'), ('race_name_clean', 'stable'), ('race_name_reserve', 'volatile')) AS t(f, v);

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM backend.race_names', '42501', NULL, 'backend_api does not see who holds a name');
SELECT throws_ok($$SELECT backend.race_name_reserve(gen_random_uuid(), 'Zorg')$$, '42501', NULL, 'nor takes one past its door');
RESET ROLE;

-- What two names that are one have in common.
SELECT is(backend.race_name_canonical(a), backend.race_name_canonical(b), format('%L and %L are one name', a, b))
  FROM (VALUES ('Zorg', 'zORG'), ('Zorg', 'ＺＯＲＧ'), ('Zorg', 'Z0rg'), ('Ivan', 'lvan'), ('Ivan', '1van'), ('Ivan', 'IVAN'), ('Red Star', 'Red-Star'),
               ('Red Star', 'R.e.d.Star'), ('Red Star', 'redstar'), ('O''Neill', '0 NEILL'), ('Ünal', E'U\u0308nal'), ('ﬁre', 'fire'), ('x²', 'x2')) AS t(a, b);
SELECT isnt(backend.race_name_canonical(a), backend.race_name_canonical(b), format('%L and %L are two', a, b))
  FROM (VALUES ('Zorg', 'Borg'), ('Zorg', 'Zorgs'), ('Unal', 'Ünal')) AS t(a, b);

-- A name as it is kept.
SELECT is(backend.race_name_clean(g), k, format('%L is kept as %L', g, k))
  FROM (VALUES ('Zorg', 'Zorg'), ('  Zorg  ', 'Zorg'), (E'Red \t Star', 'Red Star'), (E'U\u0308nal', 'Ünal'), ('Аня', 'Аня'), ('銀河', '銀河'), ('St. Ann''s-on-Sea', 'St. Ann''s-on-Sea'),
               ('4X', '4X'), ('Inc.', 'Inc.'), (repeat('x', 32), repeat('x', 32))) AS t(g, k);
SELECT throws_ok(format('SELECT backend.race_name_clean(%L)', n), 'GX422', 'invalid_name', format('%L is no name', n))
  FROM unnest(ARRAY['', ' ', 'x', ' x ', repeat('x', 33), '--', '-Zorg', '.Zorg', '''Zorg', 'Zorg-', 'a_b', 'a/b', '<b>', 'Zorg!', E'Zo\u200brg', E'Zo\u202erg', E'Zo\u0007rg', '🚀🚀']) AS n;

-- Taking a name.
SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob') AS bob \gset
SELECT is(backend.race_name_reserve(:'ann', ' Zorg '), 'Zorg', 'a name is taken as it is kept');
SELECT results_eq(
    'SELECT race_name, canonical, user_id, tier, expires_at, registered_at, released_at FROM backend.race_names',
    format($$VALUES ('Zorg', 'zorg', %L::uuid, 'reservation', NULL::timestamptz, NULL::timestamptz, NULL::timestamptz)$$, :'ann'), 'as a reservation');
SELECT is(backend.race_name_reserve(:'ann', 'Z0RG'), 'Z0RG', 'its holder may take it again, written otherwise');
SELECT is((SELECT count(*) FROM backend.race_names), 1::bigint, 'it is still one claim');
SELECT throws_ok(format('SELECT backend.race_name_reserve(%L, %L)', :'bob', n), 'GX422', 'name_taken', format('nobody else takes %L', n))
  FROM unnest(ARRAY['Zorg', 'z-o-r-g', 'Z0rg', 'ＺＯＲＧ']) AS n;
SELECT throws_ok(format('SELECT backend.race_name_reserve(%L, ''x'')', :'bob'), 'GX422', 'invalid_name', 'what is no name is not taken');
SELECT is(pg_temp.refused(format('SELECT backend.race_name_reserve(%L, ''Zorg'')', :'bob'))::text ~ :'ann', false, 'a refusal never says by whom it is held');
UPDATE backend.race_names SET released_at = backend.now();
SELECT is(backend.race_name_reserve(:'bob', 'Zorg'), 'Zorg', 'a name that was let go is free');
SELECT is((SELECT count(*) FROM backend.race_names), 2::bigint, 'and that it was held before is not forgotten');
UPDATE backend.race_names SET tier = 'pending_registration', expires_at = backend.now() + interval '1 day' WHERE user_id = :'bob';
SELECT throws_ok(format('SELECT backend.race_name_reserve(%L, ''Zorg'')', :'ann'), 'GX422', 'name_taken', 'an earned name is held');
UPDATE backend.race_names SET tier = 'registered', expires_at = NULL, registered_at = backend.now() WHERE user_id = :'bob';
SELECT throws_ok(format('SELECT backend.race_name_reserve(%L, ''Zorg'')', :'ann'), 'GX422', 'name_taken', 'a registered one too');
SELECT is(backend.race_name_reserve(:'bob', 'Zorg'), 'Zorg', 'but not for its holder');

-- Constraints.
SELECT is(
    pg_temp.violated(format('INSERT INTO backend.race_names (canonical, race_name, user_id, tier, expires_at, registered_at) VALUES (%s)', replace(v, ':ann', quote_literal(:'ann')))),
    c, d)
  FROM (VALUES
    ($$'new', 'New', :ann, 'reservation', NULL, NULL$$, 'nothing', 'a reservation'),
    ($$'zorg', 'Zorg', :ann, 'reservation', NULL, NULL$$, 'race_names_one_holder', 'a name has one holder'),
    ($$'', 'New', :ann, 'reservation', NULL, NULL$$, 'race_names_canonical_is_not_empty', 'a name is something'),
    ($$'x', 'x', :ann, 'reservation', NULL, NULL$$, 'race_names_race_name_has_2_to_32_characters', 'a name is not too short'),
    (format($$'x', %L, :ann, 'reservation', NULL, NULL$$, repeat('x', 33)), 'race_names_race_name_has_2_to_32_characters', 'nor too long'),
    ($$'other', 'Other', :ann, 'borrowed', NULL, NULL$$, 'race_names_tier_is_known', 'a tier is known'),
    ($$'other', 'Other', :ann, 'pending_registration', NULL, NULL$$, 'race_names_pending_registration_expires', 'what was earned has an end'),
    ($$'other', 'Other', :ann, 'reservation', now(), NULL$$, 'race_names_pending_registration_expires', 'what is in use has none'),
    ($$'other', 'Other', :ann, 'registered', NULL, NULL$$, 'race_names_registered_says_when', 'what is registered says since when'),
    ($$'other', 'Other', :ann, 'reservation', NULL, now()$$, 'race_names_registered_says_when', 'what is not does not'),
    ($$'other', 'Other', gen_random_uuid(), 'reservation', NULL, NULL$$, 'race_names_user_id_fkey', 'a holder is somebody')
  ) AS t(v, c, d);

SELECT * FROM finish();
ROLLBACK;
