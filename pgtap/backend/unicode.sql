-- Test galaxy-backend:backend/unicode

BEGIN;
SELECT plan(45);
\ir ../helpers.psql

-- Attributes.
SELECT has_table('backend', t::name, format('there is %s', t))
  FROM unnest(ARRAY['unicode_version', 'case_foldings', 'confusables', 'default_ignorables', 'name_characters']) AS t;
SELECT col_is_pk('backend', t::name, c::name, format('%s has a row for each %s', t, c))
  FROM (VALUES ('case_foldings', 'codepoint'), ('confusables', 'codepoint'), ('default_ignorables', 'first_codepoint'), ('name_characters', 'first_codepoint')) AS t(t, c);
SELECT volatility_is('backend', f::name, 'stable', format('%s() reads tables, and is STABLE', f)) FROM unnest(ARRAY['text_visible', 'text_fold', 'text_skeleton']) AS f;

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.text_fold('A')$$, '42501', NULL, 'backend_api does not come near');
RESET ROLE;

-- The data.
SELECT results_eq('SELECT unicode_version FROM backend.unicode_version', $$VALUES ('15.0.0')$$, 'it is known of which Unicode they are');
SELECT is(
    (SELECT count(*) FROM (SELECT first_codepoint, lag(last_codepoint) OVER (ORDER BY first_codepoint) AS before FROM backend.name_characters) AS r WHERE before >= first_codepoint),
    0::bigint, 'no character is in two ranges');
SELECT is(pg_temp.violated(v), c, d)
  FROM (VALUES
    ('INSERT INTO backend.unicode_version (data_version, unicode_version, icu_version) VALUES ('''', '''', '''')', 'unicode_version_pkey', 'they are one version'),
    ('INSERT INTO backend.unicode_version (is_only, data_version, unicode_version, icu_version) VALUES (false, '''', '''', '''')', 'unicode_version_has_one_row', 'whatever one tries'),
    ('INSERT INTO backend.case_foldings (codepoint, folding) VALUES (1, '''')', 'case_foldings_folding_is_something', 'no character folds to nothing'),
    ('INSERT INTO backend.confusables (codepoint, skeleton) VALUES (1, '''')', 'confusables_skeleton_is_something', 'nor looks like nothing'),
    ('INSERT INTO backend.default_ignorables (first_codepoint, last_codepoint) VALUES (2, 1)', 'default_ignorables_range_is_not_empty', 'a range holds something'),
    ('INSERT INTO backend.name_characters (first_codepoint, last_codepoint, kind, scripts) VALUES (2, 1, ''mark'', ''{}'')', 'name_characters_range_is_not_empty', 'here too'),
    ('INSERT INTO backend.name_characters (first_codepoint, last_codepoint, kind, scripts) VALUES (1, 1, ''sign'', ''{}'')', 'name_characters_kind_is_known', 'a character is of a kind')
  ) AS t(v, c, d);

-- What is not shown.
SELECT is(backend.text_visible(g), k, d)
  FROM (VALUES (E'Zo\u200brg', 'Zorg', 'a space without width is not shown'), (E'\u00adZorg\ufeff', 'Zorg', 'nor what a line could be broken at, nor a mark of the byte order'),
               (E'Z\u2060o\u034fr\U000E0041g', 'Zorg', 'nor joiners, nor tags'), ('Zorg', 'Zorg', 'a letter is'), (E'\u200b', '', 'of nothing nothing is shown'),
               ('', '', 'nor of an empty text'), (NULL, '', 'nor of none')) AS t(g, k, d);

-- Case.
SELECT is(backend.text_fold(g), k, format('%L folds to %L', g, k))
  FROM (VALUES ('ZORG', 'zorg'), ('Straße', 'strasse'), ('ΌΣΟΣ', 'όσοσ'), ('όσος', 'όσοσ'), ('ЁЛКА', 'ёлка'), ('ﬁ', 'fi'), ('İ', E'i\u0307'), ('ı', 'ı'), ('銀', '銀'), ('', '')) AS t(g, k);

-- Looks.
SELECT is(backend.text_skeleton(a), backend.text_skeleton(b), format('%L looks like %L', a, b))
  FROM (VALUES ('rn', 'm'), ('zorɡ', 'zorg'), ('zоrg', 'zorg'), ('1', 'l'), ('ꓟ', 'M'), (E'\u00e9', E'e\u0301')) AS t(a, b);

SELECT * FROM finish();
ROLLBACK;
