-- Test galaxy-backend:backend/geo

BEGIN;
SELECT plan(13);
\ir ../helpers.psql

SELECT has_table('backend', 'user_country_counters', 'countries are counted');
SELECT col_is_pk('backend', 'user_country_counters', ARRAY['user_id', 'country'], 'by person and country');
SELECT fk_ok('backend', 'user_country_counters', 'user_id', 'backend', 'accounts', 'user_id', 'of somebody');
SELECT has_view('backend', 'invariants_geo', 'what must hold is written down');
SELECT a.user_id AS ann FROM backend.account_create('email', 'ann@example.org', 'ann@example.org', 'en', 'UTC', NULL) AS a \gset
SELECT a.user_id AS bob FROM backend.account_create('email', 'bob@example.org', 'bob@example.org', 'en', 'UTC', NULL) AS a \gset
SELECT is(
    pg_temp.violated(format($$INSERT INTO backend.user_country_counters (user_id, country, requests, first_seen_at, last_seen_at)
                              VALUES (%L, %s)$$, :'ann', v)), c, d)
  FROM (VALUES
    ($$'de', 1, now(), now()$$, 'user_country_counters_country_is_iso_3166', 'a country is one'),
    ($$'DE', 0, now(), now()$$, 'user_country_counters_requests_are_some', 'a count is some'),
    ($$'DE', 1, now(), now() - interval '1 second'$$, 'user_country_counters_last_is_not_before_first', 'the last is not before the first'),
    ($$'DE', 1, now(), now()$$, 'nothing', 'a good one is taken'), ($$'FR', 1, now(), now()$$, 'nothing', 'and another')) AS t (v, c, d);
INSERT INTO backend.user_country_counters (user_id, country, requests, first_seen_at, last_seen_at) VALUES (:'bob', 'DE', 1, now(), now());
SELECT is_empty('SELECT * FROM backend.invariants_geo', 'nothing is wrong');
UPDATE backend.accounts SET display_name = 'x' WHERE user_id = :'ann';
SELECT is((SELECT count(*) FROM backend.user_country_counters), 3::bigint, 'another change forgets nothing');
SELECT backend.account_delete(:'ann') \g /dev/null
SELECT set_eq('SELECT user_id FROM backend.user_country_counters', ARRAY[:'bob']::uuid[], 'who is deleted is forgotten, and nobody else');
SELECT pg_temp.plant(format(
    $$INSERT INTO backend.user_country_counters (user_id, country, requests, first_seen_at, last_seen_at) VALUES (%L, 'DE', 1, now(), now())$$, :'ann')) \g /dev/null
SELECT results_eq(
    'SELECT invariant, object_id, details FROM backend.invariants_geo', format($$VALUES ('deleted_account_with_countries', %L::uuid, 'DE')$$, :'ann'),
    'what is wrong is seen');

SELECT * FROM finish();
ROLLBACK;
