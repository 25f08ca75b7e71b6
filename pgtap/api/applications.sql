-- Test galaxy-backend:api/applications

BEGIN;
SELECT plan(103);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], returns text, volatility text);
INSERT INTO functions VALUES
    ('application_create', ARRAY['uuid', 'uuid', 'jsonb'], 'api.reply', 'volatile'),
    ('application_get', ARRAY['uuid', 'uuid', 'uuid'], 'text', 'stable'),
    ('application_list', ARRAY['uuid', 'uuid', 'integer', 'text'], 'text', 'stable'),
    ('my_application_list', ARRAY['uuid', 'integer', 'text'], 'text', 'stable'),
    ('application_approve', ARRAY['uuid', 'uuid', 'uuid'], 'text', 'volatile'),
    ('application_reject', ARRAY['uuid', 'uuid', 'uuid'], 'text', 'volatile'),
    ('application_withdraw', ARRAY['uuid', 'uuid', 'uuid'], 'text', 'volatile');
SELECT function_returns('api', name, arguments, returns, format('%s() answers %s', name, returns)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('eve') AS eve, gen_random_uuid() AS nobody \gset
SELECT pg_temp.public_game(:'ann') AS game, pg_temp.public_game() AS other \gset
SELECT api.game_open_enrollment(:'ann', :'game') \g /dev/null

-- A new one. What a name and a person may not be is proved with the rules.
SET LOCAL ROLE backend_api;
SELECT (r).status, (r).body, (r).location FROM (SELECT api.application_create(:'bob', :'game', '{"race_name": "Betas"}') AS r OFFSET 0) AS t \gset
SELECT :'body'::jsonb ->> 'application_id' AS application \gset
SELECT is(:status, 201, 'an application is created');
SELECT is(:'location'::text, format('/api/v1/user/lobby/games/%s/applications/%s', :'game', :'application'), 'and is found there');
SELECT is(api.application_get(:'bob', :'game', :'application')::jsonb, :'body'::jsonb, 'by who made it');
SELECT is(api.application_get(:'ann', :'game', :'application')::jsonb, :'body'::jsonb, 'and by the owner');
SELECT throws_ok(format('SELECT api.application_get(%L, %L, %L)', u, g, a), 'GX404', 'application_not_found', d)
  FROM (VALUES (:'eve', :'game', :'application', 'others do not see it'), (:'bob', :'other', :'application', 'it is of one game'), (:'bob', :'game', :'nobody', 'and is one that there is')) AS t(u, g, a, d);
SELECT is((api.application_list(:'ann', :'game', 50, NULL)::jsonb -> 'items'), jsonb_build_array(:'body'::jsonb), 'an owner sees what there is');
SELECT is((api.my_application_list(:'bob', 50, NULL)::jsonb -> 'items'), jsonb_build_array(:'body'::jsonb), 'a person theirs');
SELECT is((api.my_application_list(:'eve', 50, NULL)::jsonb -> 'items'), '[]', 'and nobody else''s');
SELECT throws_ok(format('SELECT api.application_list(%L, %L, 50, NULL)', :'bob', :'game'), 'GX403', 'forbidden', 'others do not see the list');
SELECT throws_ok(format('SELECT api.application_list(%L, %L, 50, NULL)', :'ann', :'nobody'), 'GX404', 'game_not_found', 'of a game that there is');
SELECT api.application_create(:'cid', :'game', '{"race_name": "Gammas"}') \g /dev/null
SELECT api.application_list(:'ann', :'game', 1, NULL) AS page1 \gset
SELECT is(
    :'page1'::jsonb -> 'items' || (api.application_list(:'ann', :'game', 1, :'page1'::jsonb ->> 'next_cursor')::jsonb -> 'items'),
    api.application_list(:'ann', :'game', 50, NULL)::jsonb -> 'items', 'in pages');
SELECT throws_ok(format('SELECT api.my_application_list(%L, 1, %L)', :'bob', :'page1'::jsonb ->> 'next_cursor'), 'GX400', 'invalid_cursor', 'a cursor is of one list');
SELECT throws_ok(format('SELECT api.application_list(%L, %L, 1, ''00'')', :'ann', :'game'), 'GX400', 'invalid_cursor', 'and is one');
RESET ROLE;
SELECT api.application_list(:'ann', :'game', 50, NULL)::jsonb -> 'items' -> 0 ->> 'application_id' AS cids \gset
SELECT is(
    pg_temp.undone(s, format('SELECT pg_temp.answer(%L)', format('SELECT api.application_approve(%L, %L, %L)', :'ann', :'game', :'cids'))), st || ' ' || c, format('no seat is given: %s', c))
  FROM (VALUES
    ('GX403', 'sanctioned', format('SELECT pg_temp.sanction(%L, ''game_join_block'')', :'cid')),
    ('GX409', 'already_member', format('SELECT pg_temp.join(%L, %L, ''Others'')', :'game', :'cid')),
    ('GX422', 'eligibility_denied', format('SELECT pg_temp.join(%1$L, %2$L, ''Others''); UPDATE backend.memberships SET status = ''blocked'', ended_at = now() WHERE game_id = %1$L AND user_id = %2$L', :'game', :'cid')),
    ('GX422', 'enrollment_ended', format('UPDATE backend.games SET enrollment_ends_at = backend.now() WHERE game_id = %L', :'game')),
    ('GX422', 'game_full', format('UPDATE backend.games SET max_players = 2 WHERE game_id = %1$L; SELECT pg_temp.join(%1$L, %2$L, ''Others''), pg_temp.join(%1$L, %3$L, ''More'')', :'game', :'bob', :'eve')),
    ('GX422', 'invalid_name', format('UPDATE backend.applications SET race_name = ''?!'' WHERE application_id = %L', :'cids')),
    ('GX422', 'limit_reached', format('SELECT pg_temp.set_limit(%L, ''max_active_memberships'', 0)', :'cid')),
    ('GX422', 'name_taken', format('SELECT backend.race_name_reserve(%L, race_name) FROM backend.applications WHERE application_id = %L', :'eve', :'cids'))
  ) AS t(st, c, s);
SELECT is(
    pg_temp.undone(s, format('SELECT pg_temp.answer(%L)', format('SELECT api.application_create(%L, %L, ''{"race_name": "Etas"}'')', u, :'game'))), st || ' ' || c, format('nobody applies: %s', c))
  FROM (VALUES ('GX409', 'already_applied', :'cid', 'SELECT 1'), ('GX422', 'eligibility_denied', :'ann', 'SELECT 1')) AS t(st, c, u, s);
SELECT throws_ok(format('SELECT api.application_withdraw(%L, %L, %L)', :'ann', :'game', :'application'), 'GX403', 'forbidden', 'an owner does not take it back');
SELECT throws_ok(format('SELECT api.application_approve(%L, %L, %L)', :'bob', :'game', :'application'), 'GX403', 'forbidden', 'nor does anybody approve their own');
SELECT throws_ok(format('SELECT api.application_reject(%L, %L, %L)', :'eve', :'game', :'application'), 'GX404', 'application_not_found', 'for others there is none');
SELECT throws_ok(format('SELECT api.application_reject(%L, %L, %L)', :'ann', :'nobody', :'application'), 'GX404', 'game_not_found', 'nor where there is no game');
SELECT is(api.application_withdraw(:'bob', :'game', :'application')::jsonb ->> 'status', 'withdrawn', 'who made it does');
SELECT throws_ok(format('SELECT api.application_withdraw(%L, %L, %L)', :'bob', :'game', :'application'), 'GX409', 'invalid_transition', 'once');
SELECT is((api.application_create(:'bob', :'game', '{"race_name": "Betas"}')).status, 201, 'and may apply again');
RESET ROLE;
SELECT is((SELECT count(*) FROM backend.notifications WHERE kind LIKE 'lobby.application.%' AND user_id = :'bob'), 0::bigint, 'who withdrew is told nothing');

-- Those who may not.
CREATE TEMPORARY TABLE calls (name text, call text);
INSERT INTO calls
SELECT name, CASE WHEN name = 'application_create' THEN format('SELECT api.application_create(%%L, %L, ''{"race_name": "Etas"}'')', :'game')
                  WHEN name = 'my_application_list' THEN 'SELECT api.my_application_list(%L, 50, NULL)'
                  WHEN name = 'application_list' THEN format('SELECT api.application_list(%%L, %L, 50, NULL)', :'game')
                  ELSE format('SELECT api.%I(%%L, %L, %L)', name, :'game', :'application') END
  FROM functions;
SELECT throws_ok(format(call, :'nobody'), 'GX404', 'account_not_found', format('%s is for somebody', name)) FROM calls;
SELECT pg_temp.sanction(:'eve', 'login_block') \g /dev/null
SELECT throws_ok(format(call, :'eve'), 'GX403', 'sanctioned', format('%s is for somebody who may sign in', name)) FROM calls;
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'eve';
SELECT throws_ok(format(call, :'eve'), 'GX403', 'account_blocked', format('%s is for nobody who is blocked', name)) FROM calls;
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'eve';
SELECT throws_ok(format(call, :'eve'), 'GX403', 'account_deleted', format('%s is for nobody who is gone', name)) FROM calls;

SELECT * FROM finish();
ROLLBACK;
