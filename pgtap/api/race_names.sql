-- Test galaxy-backend:api/race_names

BEGIN;
SELECT plan(83);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], volatility text);
INSERT INTO functions VALUES
    ('race_name_register', '{uuid,jsonb}', 'volatile'), ('race_name_check', '{uuid,text}', 'stable'), ('my_race_name_list', '{uuid,integer,text}', 'stable');
SELECT function_returns('api', name, arguments, 'text', format('%s() has one answer', name)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, p::name[], format('%s may execute %s(): %s', r, name, p <> '{}'))
  FROM functions, (VALUES ('backend_api', '{EXECUTE}'), ('backend_worker', '{}'), ('backend_push', '{}')) AS t(r, p);

SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob', 'monthly') AS bob, pg_temp.person('eve') AS eve, gen_random_uuid() AS nobody \gset
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas"}') AS game \gset
SELECT pg_temp.name(:'ann', 'Mars', 'pending_registration'), pg_temp.name(:'ann', 'Venus', 'pending_registration'),
       pg_temp.name(:'bob', 'Pluto', 'registered'), pg_temp.name(:'bob', 'Saturn', 'pending_registration', backend.now() + interval '1 hour') \g /dev/null

SET LOCAL ROLE backend_api;

-- Whether a name can be taken.
SELECT is(api.race_name_check(:'ann', n)::jsonb, jsonb_build_object('race_name', k, 'available', r IS NULL, 'reason', r), format('%L: %s', n, coalesce(r, 'available')))
  FROM (VALUES ('Zorg', 'Zorg', NULL), ('  Red   Star ', 'Red Star', NULL), (E'U\u0308nal', 'Ünal', NULL), ('Alphas', 'Alphas', NULL), ('ALPHA5', 'ALPHA5', NULL), ('MARS', 'MARS', NULL),
               ('Pluto', 'Pluto', 'name_taken'), ('p-1-u-t-o', 'p-1-u-t-o', 'name_taken'), ('ＰＬＵＴＯ', 'ＰＬＵＴＯ', 'name_taken'), ('Saturn', 'Saturn', 'name_taken'),
               ('Adm1n', 'Adm1n', 'name_reserved'), ('x', 'x', 'invalid_name'), ('', '', 'invalid_name'), ('Zorg!', 'Zorg!', 'invalid_name'), ('Zоrg', 'Zоrg', 'invalid_name')) AS t(n, k, r);
SELECT is(api.race_name_check(:'bob', 'Alphas')::jsonb ->> 'reason', 'name_taken', 'what is in use is taken for others');
SELECT is(api.race_name_check(:'bob', 'rnars')::jsonb ->> 'reason', 'name_taken', 'what was earned too');
SELECT is(api.race_name_check(:'bob', 'Alphas') ~ :'ann', false, 'nobody is told by whom');

-- What one has.
CREATE FUNCTION pg_temp.names(p_page text) RETURNS text[]
LANGUAGE sql
RETURN (SELECT coalesce(array_agg(i ->> 'race_name' || ' ' || (i ->> 'status') ORDER BY n), '{}') FROM jsonb_array_elements(p_page::jsonb -> 'items') WITH ORDINALITY AS t(i, n));
SELECT is(pg_temp.names(api.my_race_name_list(:'ann', 50, NULL)), ARRAY['Venus pending_registration', 'Mars pending_registration', 'Alphas reservation'], 'one''s names, newest first');
SELECT is(
    api.my_race_name_list(:'ann', 50, NULL)::jsonb -> 'items' -> 2,
    jsonb_build_object('race_name', 'Alphas', 'status', 'reservation', 'game_ids', jsonb_build_array(:'game'), 'expires_at', NULL, 'registered_at', NULL), 'with the games in which one uses them');
SELECT is(
    api.my_race_name_list(:'bob', 50, NULL)::jsonb -> 'items' -> 0 ->> 'expires_at', to_char((api.my_race_name_list(:'bob', 50, NULL)::jsonb -> 'items' -> 0 ->> 'expires_at')::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'and until when they can be registered');
SELECT isnt(api.my_race_name_list(:'bob', 50, NULL)::jsonb -> 'items' -> 1 ->> 'registered_at', NULL, 'or since when they are');
SELECT is(pg_temp.names(api.my_race_name_list(:'eve', 50, NULL)), '{}', 'somebody else has none');
SELECT api.my_race_name_list(:'ann', 2, NULL) AS page1 \gset
SELECT api.my_race_name_list(:'ann', 2, :'page1'::jsonb ->> 'next_cursor') AS page2 \gset
SELECT is(pg_temp.names(:'page1') || pg_temp.names(:'page2'), ARRAY['Venus pending_registration', 'Mars pending_registration', 'Alphas reservation'], 'in pages');
SELECT is(:'page2'::jsonb -> 'next_cursor', 'null', 'of which the last says that it is');
SELECT throws_ok(format('SELECT api.my_race_name_list(%L, 2, %L)', :'bob', :'page1'::jsonb ->> 'next_cursor'), 'GX400', 'invalid_cursor', 'a cursor is of one person''s list');

-- Registering.
CREATE FUNCTION pg_temp.register(p_user_id uuid, p_race_name text) RETURNS jsonb
LANGUAGE sql
RETURN api.race_name_register(p_user_id, jsonb_build_object('race_name', p_race_name))::jsonb;
SELECT throws_ok(format('SELECT pg_temp.register(%L, %L)', :'ann', n), 'GX404', 'race_name_not_found', d)
  FROM (VALUES ('Nothing', 'what nobody has is not registered'), ('Saturn', 'nor what another has'), ('x', 'nor what is no name'), ('', 'nor nothing')) AS t(n, d);
SELECT throws_ok(format('SELECT pg_temp.register(%L, ''Alphas'')', :'ann'), 'GX409', 'invalid_transition', 'what is only in use is not registered');
SELECT is(
    pg_temp.refused(format('SELECT pg_temp.register(%L, ''Alphas'')', :'ann')) ->> 'hint', '{"from": "reservation", "action": "register", "allowed": []}', 'and one is told why');
SELECT is(
    pg_temp.register(:'ann', 'RNARS') - 'registered_at', '{"race_name": "Mars", "status": "registered", "game_ids": [], "expires_at": null}', 'what one has earned is registered, however one writes it');
SELECT throws_ok(format('SELECT pg_temp.register(%L, ''Mars'')', :'ann'), 'GX409', 'invalid_transition', 'once');
SELECT throws_ok(format('SELECT pg_temp.register(%L, ''Venus'')', :'ann'), 'GX422', 'race_name_registration_quota_exceeded', 'with as many as one may have one registers no more');
SELECT is(
    pg_temp.refused(format('SELECT pg_temp.register(%L, ''Venus'')', :'ann')) ->> 'hint', '{"limit": "max_registered_race_names", "value": 1}', 'and is told how many that is');
SELECT is(pg_temp.names(api.my_race_name_list(:'ann', 50, NULL)), ARRAY['Venus pending_registration', 'Mars registered', 'Alphas reservation'], 'which changes nothing');
SELECT is(pg_temp.register(:'bob', 'Saturn') ->> 'status', 'registered', 'whoever pays may have more');
RESET ROLE;
SELECT results_eq(
    $$SELECT user_id, payload FROM backend.notifications WHERE kind = 'lobby.race_name.registered' ORDER BY notification_id$$,
    format($$VALUES (%L::uuid, '{"race_name": "Mars"}'::jsonb), (%L, '{"race_name": "Saturn"}')$$, :'ann', :'bob'), 'one is told on all devices');
SELECT is(
    (SELECT registered_at FROM backend.race_names WHERE race_name = 'Saturn'), backend.now(), 'it is dated');
SELECT pg_temp.set_limit(:'ann', 'max_registered_race_names', 2) \g /dev/null
SELECT is(
    pg_temp.undone(format('SELECT pg_temp.register(%L, ''Venus'')', :'ann'), 'SELECT ''done'''), 'done', 'a number of one''s own counts');
SELECT pg_temp.grant_tier(:'bob', 'free') \g /dev/null
SELECT pg_temp.name(:'bob', 'Uranus', 'pending_registration') \g /dev/null
SELECT throws_ok(format('SELECT pg_temp.register(%L, ''Uranus'')', :'bob'), 'GX422', 'race_name_registration_quota_exceeded', 'who paid once keeps what they have, and registers no more');
SELECT is((SELECT count(*) FROM backend.race_names WHERE user_id = :'bob' AND tier = 'registered'), 2::bigint, 'more than one may have is not taken away');

-- Time.
SELECT pg_temp.advance(interval '1 day' - interval '1 microsecond') \g /dev/null
SELECT is(pg_temp.undone(format('SELECT pg_temp.register(%L, ''Venus'')', :'ann'), 'SELECT ''done'''), 'done', 'there is time to the last microsecond');
SELECT pg_temp.advance('1 microsecond') \g /dev/null
SELECT throws_ok(format('SELECT pg_temp.register(%L, ''Venus'')', :'ann'), 'GX422', 'race_name_pending_window_expired', 'and no more');
SELECT is(pg_temp.names(api.my_race_name_list(:'ann', 50, NULL)), ARRAY['Mars registered', 'Alphas reservation'], 'whose time is over is not one''s any more');
SELECT is(api.race_name_check(:'eve', 'Venus')::jsonb -> 'available', 'true', 'and free for others');
SELECT is(backend.race_names_expire(10), 2, 'once that is written down');
SELECT throws_ok(format('SELECT pg_temp.register(%L, ''Venus'')', :'ann'), 'GX422', 'race_name_pending_window_expired', 'one is told the same');
SELECT is(backend.race_name_reserve(:'eve', 'Venus'), 'Venus', 'also when somebody else');
SELECT throws_ok(format('SELECT pg_temp.register(%L, ''Venus'')', :'ann'), 'GX422', 'race_name_pending_window_expired', 'has it');
SELECT throws_ok(format('SELECT pg_temp.register(%L, ''Venus'')', :'bob'), 'GX404', 'race_name_not_found', 'who never had it is told that they have not');
DELETE FROM backend.race_names WHERE user_id = :'eve';
SELECT pg_temp.join(:'game', :'bob', 'Neptune') \g /dev/null
UPDATE backend.memberships SET status = 'removed', ended_at = backend.now() WHERE user_id = :'bob';
SELECT backend.race_name_release_unused(:'bob', backend.race_name_canonical('Neptune')) \g /dev/null
SELECT throws_ok(format('SELECT pg_temp.register(%L, ''Neptune'')', :'bob'), 'GX404', 'race_name_not_found', 'nor what was only in use');

-- Those who may not.
CREATE TEMPORARY TABLE calls (name text, call text);
INSERT INTO calls VALUES ('race_name_register', 'SELECT api.race_name_register(%L, ''{"race_name": "Mars"}'')'), ('race_name_check', 'SELECT api.race_name_check(%L, ''Mars'')'),
                         ('my_race_name_list', 'SELECT api.my_race_name_list(%L, 50, NULL)');
SELECT throws_ok(format(call, :'nobody'), 'GX404', 'account_not_found', format('%s is for somebody', name)) FROM calls;
SELECT pg_temp.sanction(:'ann', 'login_block') \g /dev/null
SELECT throws_ok(format(call, :'ann'), 'GX403', 'sanctioned', format('%s is for who may sign in', name)) FROM calls;
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'ann';
SELECT throws_ok(format(call, :'ann'), 'GX403', 'account_blocked', format('%s is for who is not blocked', name)) FROM calls;
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'ann';
SELECT throws_ok(format(call, :'ann'), 'GX403', 'account_deleted', format('%s is for who is not gone', name)) FROM calls;

SELECT * FROM finish();
ROLLBACK;
