-- Test galaxy-backend:backend/race_names

BEGIN;
SELECT plan(233);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes.
SELECT has_table('backend', t::name, format('there is %s', t)) FROM unnest(ARRAY['race_names', 'reserved_names']) AS t;
SELECT col_is_pk('backend', 'race_names', 'race_name_id', 'a claim to a name has an id');
SELECT fk_ok('backend', 'race_names', 'user_id', 'backend', 'accounts', 'user_id', 'it is a person''s');
SELECT col_not_null('backend', 'race_names', c, format('%s is always told', c)) FROM unnest(ARRAY['canonical', 'data_version', 'race_name', 'user_id', 'tier']) AS c;
SELECT index_is_unique('backend', 'race_names', 'race_names_one_holder', 'a name has one holder');
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('race_name_canonical', 'stable'), ('race_name_tidy', 'immutable'), ('race_name_problem', 'stable'), ('race_name_clean', 'stable'),
               ('race_name_lock', 'volatile'), ('name_character', 'stable'), ('tg_race_name__store', 'volatile')) AS t(f, v);

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM backend.race_names', '42501', NULL, 'backend_api does not see who holds a name');
SELECT throws_ok($$SELECT backend.race_name_canonical('Zorg')$$, '42501', NULL, 'nor asks past its door what a name looks like');
RESET ROLE;

-- What two names that are one have in common.
SELECT is(backend.race_name_canonical(a), backend.race_name_canonical(b), format('%L and %L are one name', a, b))
  FROM (VALUES ('Zorg', 'zORG'), ('Zorg', 'ＺＯＲＧ'), ('Zorg', 'Z0rg'), ('Zorg', 'zorɡ'), ('Zorg', 'Zоrg'), ('Zorg', 'Zσrg'), ('Zorg', '𝐙𝐨𝐫𝐠'),
               ('Zorg', E'Zo\u200brg'), ('Zorg', E'\ufeffZ\u00ado\u2060r\u034fg'),
               ('Ivan', 'lvan'), ('Ivan', '1van'), ('Ivan', 'IVAN'), ('Mars', 'rnars'), ('Mars', 'ꓟars'), ('soap', 'ѕоар'), ('Oslo', '0s1o'),
               ('Red Star', 'Red-Star'), ('Red Star', 'R.e.d.Star'), ('Red Star', 'redstar'), ('O''Neill', '0 NEILL'), ('Ünal', E'U\u0308nal'), ('ﬁre', 'fire'),
               ('Straße', 'STRASSE'), ('Οδυσσεύς', 'ΟΔΥΣΣΕΎΣ'), ('x²', 'x2'), ('銀河', '銀 河')) AS t(a, b);
SELECT isnt(backend.race_name_canonical(a), backend.race_name_canonical(b), format('%L and %L are two', a, b))
  FROM (VALUES ('Zorg', 'Borg'), ('Zorg', 'Zorgs'), ('Unal', 'Ünal'), ('銀河', '銀何'), ('Иван', 'Петр')) AS t(a, b);
SELECT is(backend.race_name_canonical(g), k, d)
  FROM (VALUES ('I l 1', 'lll', 'nothing is left between what is left'), (' -''.', '', 'of separators nothing is left'), ('', '', 'nor of nothing')) AS t(g, k, d);

-- A name as it is kept.
SELECT is(backend.race_name_clean(g), k, format('%L is kept as %L', g, k))
  FROM (VALUES ('Zorg', 'Zorg'), ('  Zorg  ', 'Zorg'), (E'Red \t Star', 'Red Star'), (E'銀河\u3000帝国', '銀河 帝国'), (E'\u00a0Zorg\u2003', 'Zorg'), (E'U\u0308nal', 'Ünal'),
               ('St. Ann''s-on-Sea', 'St. Ann''s-on-Sea'), ('4X', '4X'), ('42', '42'), ('Inc.', 'Inc.'), ('''t Hooft', '''t Hooft'), ('ＺＯＲＧ', 'ＺＯＲＧ'),
               (repeat('x', 32), repeat('x', 32)), (repeat(E'e\u0301', 32), repeat('é', 32))) AS t(g, k);
-- People call themselves so.
SELECT is(backend.race_name_problem(n), NULL, format('%L is a name', n))
  FROM unnest(ARRAY['Аня', 'Ёлка', 'Łódź', 'Nguyễn', 'Ẹ́kọ́', 'Νίκος', 'Արամ', 'ქეთი', 'שלום', 'מַיִם', 'العربيّة', 'محمد ٤', 'پارسا', 'नेपाल', 'हिन्दी १२', 'বাংলা', 'தமிழ்', 'తెలుగు', 'ಕನ್ನಡ',
                    'മലയാളം', 'ประเทศไทย', 'ភាសាខ្មែរ', 'မြန်မာ', 'ລາວ', 'አማርኛ', 'ᏣᎳᎩ', 'ᐃᓄᒃ', 'ⵜⴰⵎⴰ', '한국', '韓國한국', 'ガンダムー', '東京タワー', 'さくら銀河', '銀河', 'ㄅㄆㄇ漢']) AS n;
SELECT is(backend.race_name_problem(n), 'invalid_name', format('%s is no name', to_json(n)))
  FROM unnest(ARRAY['', 'x', repeat('x', 33), '--', ' .', '''-''', 'a_b', 'a/b', 'a,b', '<b>', 'Zorg!', 'a"b', 'x²', 'Ⅷx', E'Zo\u200brg', E'Zo\u202erg', E'Zo\u0007rg', E'Zo\nrg', '🚀🚀', 'a🚀',
                    'Zоrg', 'Ζorg', 'Zorg银河', 'ひらкана', '한국カナ', 'ガンダム한', 'ㄅカ', 'Аняz', 'ʼʼ',
                    E'\u0301abc', E'a \u0301b', E'4\u0301b', E'q\u0301\u0301a', E'q\u0301\u0300\u0302\u0303\u0304a', E'a\u20dd', E'x\ue000', E'\U0010ffffx']) AS n;
SELECT is(backend.race_name_problem(NULL), 'invalid_name', 'nor is none');
SELECT is(backend.race_name_problem(n), 'name_reserved', format('%L speaks for the platform', n))
  FROM unnest(ARRAY['admin', 'ADMIN', 'Adm1n', 'a d m i n', 'Adrnin', 'Galaxy', 'ga1axy', 'Moderator', 'M0derator', 'System', 'Game-Master', 'Everyone', 'root']) AS n;
SELECT is(backend.race_name_problem(n), NULL, format('%L does not', n)) FROM unnest(ARRAY['Admiral', 'Galaxians', 'Rooted', 'Ally']) AS n;
SELECT is(pg_temp.refused(format('SELECT backend.race_name_clean(%L)', n)) - 'detail', jsonb_build_object('sqlstate', 'GX422', 'message', 'invalid_name', 'hint', h), format('%L is refused, and why', n))
  FROM (VALUES ('x', '{"reason": "invalid_name"}'), ('Zorg!', '{"reason": "invalid_name"}'), ('Adm1n', '{"reason": "name_reserved"}')) AS t(n, h);

-- What is stored.
SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob') AS bob \gset
INSERT INTO backend.race_names (race_name, user_id, canonical, data_version) VALUES ('Z0RG', :'ann', 'other', 'none');
SELECT results_eq(
    'SELECT race_name, canonical, data_version, tier FROM backend.race_names',
    $$SELECT 'Z0RG', 'zorg', u.data_version, 'reservation' FROM backend.unicode_version AS u$$, 'a name begins as a reservation, with its form and by which data, whatever the writer said');
UPDATE backend.race_names SET canonical = 'other';
SELECT is((SELECT canonical FROM backend.race_names), 'zorg', 'nor does anybody change it by hand');
UPDATE backend.race_names SET race_name = 'Borg';
SELECT is((SELECT canonical FROM backend.race_names), 'borg', 'but with the name');
UPDATE backend.race_names SET race_name = 'Zorg';
SELECT is((SELECT count(*) FROM backend.reserved_names WHERE canonical <> backend.race_name_canonical(race_name)), 0::bigint, 'reserved names are stored likewise');
SELECT cmp_ok((SELECT count(*) FROM backend.reserved_names), '>', 30::bigint, 'and there are some');

-- Locks.
SELECT backend.race_name_lock('zorg') \g /dev/null
SELECT is((SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), 1::bigint, 'a name is held by a lock');

-- The machine, all of it: from each tier to each.
CREATE FUNCTION pg_temp.attempt(p_from text, p_to text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    v_id uuid := (SELECT race_name_id FROM backend.race_names);
BEGIN
    PERFORM pg_temp.plant(format(
        $p$UPDATE backend.race_names SET tier = %1$L, expires_at = CASE %1$L WHEN 'pending_registration' THEN now() END,
                  registered_at = CASE %1$L WHEN 'registered' THEN now() END, released_at = CASE %1$L WHEN 'released' THEN now() END$p$, p_from));
    RETURN pg_temp.answer(format(
        $p$UPDATE backend.race_names SET tier = %1$L, expires_at = CASE %1$L WHEN 'pending_registration' THEN now() END,
                  registered_at = CASE %1$L WHEN 'registered' THEN now() END, released_at = CASE %1$L WHEN 'released' THEN now() END$p$, p_to));
END;
$$;
SELECT is(
    pg_temp.attempt(f, t),
    CASE WHEN f = t OR EXISTS (SELECT FROM backend.state_transitions AS e WHERE e.machine = 'race_name' AND e.from_state = f AND e.to_state = t)
         THEN 'done' ELSE 'GX409 invalid_transition' END,
    format('from %s to %s', f, t))
  FROM unnest(ARRAY['reservation', 'pending_registration', 'registered', 'released']) AS f,
       unnest(ARRAY['reservation', 'pending_registration', 'registered', 'released', 'borrowed']) AS t;
SELECT set_eq(
    $$SELECT from_state, to_state FROM backend.state_transitions WHERE machine = 'race_name'$$,
    $$VALUES (NULL, 'reservation'), ('reservation', 'pending_registration'), ('pending_registration', 'registered'), ('pending_registration', 'reservation'),
             ('reservation', 'released'), ('pending_registration', 'released'), ('registered', 'released')$$, 'these are the ways that a name goes');
SELECT is(pg_temp.answer(format('INSERT INTO backend.race_names (race_name, user_id, tier) VALUES (''New'', %L, %L)', :'ann', t)), e, format('a name that begins as %s', t))
  FROM (VALUES ('reservation', 'done'), ('registered', 'GX409 invalid_transition'), ('pending_registration', 'GX409 invalid_transition'), ('released', 'GX409 invalid_transition')) AS t(t, e);

-- Constraints.
DELETE FROM backend.race_names;
SELECT is(
    pg_temp.violated(format('INSERT INTO backend.race_names (race_name, user_id, expires_at, registered_at, released_at) VALUES (%s)', replace(v, ':ann', quote_literal(:'ann')))),
    c, d)
  FROM (VALUES
    ($$'Zorg', :ann, NULL, NULL, NULL$$, 'nothing', 'a reservation'),
    ($$'z0rg', :ann, NULL, NULL, NULL$$, 'race_names_one_holder', 'a name has one holder'),
    ($$'--', :ann, NULL, NULL, NULL$$, 'race_names_canonical_is_not_empty', 'a name is something'),
    ($$'x', :ann, NULL, NULL, NULL$$, 'race_names_race_name_has_2_to_32_characters', 'a name is not too short'),
    (format($$%L, :ann, NULL, NULL, NULL$$, repeat('x', 33)), 'race_names_race_name_has_2_to_32_characters', 'nor too long'),
    ($$'Other', :ann, now(), NULL, NULL$$, 'race_names_pending_registration_expires', 'what is in use has no end'),
    ($$'Other', :ann, NULL, now(), NULL$$, 'race_names_registered_says_when', 'what is not registered does not say since when'),
    ($$'Other', :ann, NULL, NULL, now()$$, 'race_names_released_says_when', 'nor what is held when it was let go'),
    ($$'Other', gen_random_uuid(), NULL, NULL, NULL$$, 'race_names_user_id_fkey', 'a holder is somebody')
  ) AS t(v, c, d);
SELECT is(pg_temp.violated(format('UPDATE backend.race_names SET tier = %L', t)), c, format('a name that is %s says when', t))
  FROM (VALUES ('pending_registration', 'race_names_pending_registration_expires'), ('released', 'race_names_released_says_when')) AS t(t, c);
UPDATE backend.race_names SET tier = 'pending_registration', expires_at = now();
SELECT is(pg_temp.violated('UPDATE backend.race_names SET tier = ''registered'', expires_at = NULL'), 'race_names_registered_says_when', 'one that is registered too');
SELECT is(pg_temp.violated('UPDATE backend.race_names SET tier = ''released'', released_at = now()'), 'nothing', 'what is let go still says what it was');
SELECT is(pg_temp.violated(format('INSERT INTO backend.race_names (race_name, user_id) VALUES (''Zorg'', %L)', :'bob')), 'nothing', 'and is free');
SELECT is(pg_temp.violated(format('INSERT INTO backend.reserved_names (race_name) VALUES (%L)', n)), c, d)
  FROM (VALUES ('Adm1n', 'reserved_names_each_is_another', 'a name is reserved once'), ('-', 'reserved_names_canonical_is_not_empty', 'and is something')) AS t(n, c, d);

-- What people are called.
SELECT is(backend.race_name_problem(n), NULL, format('%s may be somebody''s name', n))
  FROM unnest(ARRAY['Ali', 'Li', 'Lia', 'Mila', 'Jill', 'Nuli', 'Ivan', 'Zoë', 'Łukasz', 'Çağrı', 'Ngọc Ánh', 'Σωκράτης', 'Олександр', 'मीरा', 'สมชาย', 'محمد', 'דויד', 'さくら', '민준']) AS n;
-- A dot on a letter that has one is not seen; marks count however they are written.
SELECT is(backend.race_name_canonical(a), backend.race_name_canonical(b), format('%s is %s', a, b))
  FROM (VALUES (U&'K\0069\0307ra', 'Kira'), (U&'J\006a\0307j', 'Jjj'), (U&'\0130stanbul', 'Istanbul')) AS t(a, b);
SELECT is(backend.race_name_problem(n), 'invalid_name', 'marks are not piled up')
  FROM unnest(ARRAY[U&'Zo\0308\0308rg', normalize(U&'Zo\0308\0308rg', NFC), normalize(U&'A\0301\0301b', NFC), normalize(U&'Zo\0308\0301\0302\0303\0304rg', NFC)]) AS n;

SELECT * FROM finish();
ROLLBACK;
