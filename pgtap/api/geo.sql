-- Test galaxy-backend:api/geo

BEGIN;
SELECT plan(24);
\ir ../helpers.psql
-- Before anything is counted for the whole service: tests that do that and move the clock go one after another.
SELECT FROM backend.clock FOR UPDATE \g /dev/null

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], result text, volatility text);
INSERT INTO functions VALUES
    ('geo_countries_add', ARRAY['jsonb'], 'integer', 'volatile'), ('geo_country_list', ARRAY['text', 'uuid'], 'text', 'stable');
SELECT function_returns('api', name, arguments, result, format('%s() is %s', name, result)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT a.user_id AS ann FROM backend.account_create('email', 'ann@example.org', 'ann@example.org', 'en', 'UTC', NULL) AS a \gset
SELECT a.user_id AS gone FROM backend.account_create('telegram', 'gone', NULL, 'en', 'UTC', NULL) AS a \gset
UPDATE backend.accounts SET deleted_at = backend.now() WHERE user_id = :'gone';
CREATE FUNCTION pg_temp.add(VARIADIC p_counts text[]) RETURNS integer LANGUAGE sql
RETURN api.geo_countries_add((SELECT jsonb_agg(jsonb_build_object('user_id', split_part(c, ' ', 1), 'country', split_part(c, ' ', 2),
                                                                  'requests', split_part(c, ' ', 3)::integer)) FROM unnest(p_counts) AS c));
CREATE FUNCTION pg_temp.counts(p_user_id uuid) RETURNS text LANGUAGE sql
RETURN (SELECT string_agg((i ->> 'country') || (i ->> 'requests'), ' ' ORDER BY n)
          FROM jsonb_array_elements(api.geo_country_list('root', p_user_id)::jsonb -> 'items') WITH ORDINALITY AS t (i, n));
SET LOCAL ROLE backend_api;
SELECT is(pg_temp.add(:'ann' || ' DE 2', :'ann' || ' FR 5', :'ann' || ' DE 1'), 2, 'counters are made');
SELECT is(pg_temp.counts(:'ann'), 'FR5 DE3', 'and listed, most first');
SELECT is(pg_temp.add(:'ann' || ' DE 4'), 1, 'a counter is added to');
SELECT is(pg_temp.counts(:'ann'), 'DE7 FR5', 'and not made anew');
SELECT is(pg_temp.add(:'gone' || ' DE 1', gen_random_uuid() || ' DE 1'), 0, 'who is gone, or never was, is not counted');
SELECT is(pg_temp.counts(:'gone'), NULL, 'nor listed');
SELECT is(api.geo_countries_add('[]'), 0, 'nothing is nothing');
SELECT is(pg_temp.violated(format($$SELECT pg_temp.add('%s xx 1')$$, :'ann')), 'user_country_counters_country_is_iso_3166', 'a country is one');
RESET ROLE;
UPDATE backend.clock SET clock_offset = '1 hour';
SET LOCAL ROLE backend_api;
SELECT pg_temp.add(:'ann' || ' DE 1') \g /dev/null
SELECT is(
    api.geo_country_list('root', :'ann')::jsonb -> 'items' -> 0,
    jsonb_build_object(
        'country', 'DE', 'requests', 8,
        'first_seen_at', to_char(transaction_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'last_seen_at', to_char((transaction_timestamp() + interval '1 hour') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
    'with the first and the last time');
SELECT throws_ok($$SELECT api.geo_country_list('root', gen_random_uuid())$$, 'GX404', 'account_not_found', 'of nobody there is no list');
SELECT throws_ok(format($$SELECT api.geo_country_list('eve', %L)$$, :'ann'), 'GX401', 'unauthorized', 'nor for who is no administrator');
SELECT throws_ok($$SELECT api.geo_country_list(NULL, gen_random_uuid())$$, 'GX401', 'unauthorized', 'who learns not even who there is');

SELECT * FROM finish();
ROLLBACK;
