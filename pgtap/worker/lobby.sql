-- Test galaxy-backend:worker/lobby

BEGIN;
SELECT plan(46);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text);
INSERT INTO functions VALUES ('enrollments_close'), ('invites_expire'), ('race_names_expire'), ('invite_attempts_purge');
SELECT function_returns('worker', name, ARRAY['integer']::name[], 'integer', format('%s() answers with a number', name)) FROM functions;
SELECT volatility_is('worker', name, ARRAY['integer']::name[], 'volatile', format('%s() is VOLATILE', name)) FROM functions;
SELECT is_definer('worker', name, ARRAY['integer']::name[], format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('worker', name, ARRAY['integer']::name[], 'backend_worker', ARRAY['EXECUTE'], format('backend_worker may execute %s()', name)) FROM functions;
SELECT function_privs_are('worker', name, ARRAY['integer']::name[], r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_api', 'backend_push']) AS r;

SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('eve') AS eve \gset
SELECT pg_temp.set_limit(:'ann', 'max_owned_private_games', 50) \g /dev/null
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas"}') AS full_one, pg_temp.game(:'ann') AS empty_one, pg_temp.game(:'ann') AS draft, pg_temp.public_game(:'ann') AS public \gset
SELECT api.game_open_enrollment(:'ann', g::uuid) FROM unnest(ARRAY[:'full_one', :'empty_one', :'public']) AS g \g /dev/null
SELECT pg_temp.join(:'full_one', :'bob', 'Betas'), pg_temp.join(:'empty_one', :'cid', 'Gammas') \g /dev/null
SELECT (api.application_create(:'eve', :'public', '{"race_name": "Etas"}')).status \g /dev/null
SELECT (api.invite_create(:'ann', :'full_one', jsonb_build_object('invited_user_id', :'eve', 'expires_at', '2100-01-01T00:00:00Z'), NULL, NULL)).status \g /dev/null

-- Enrolment is over at its end: with enough members the game is ready, without there is a day.
SELECT pg_temp.advance(interval '30 days' - interval '1 microsecond') \g /dev/null
SET LOCAL ROLE backend_worker;
SELECT is(worker.enrollments_close(100), 0, 'nothing is closed before its time');
RESET ROLE;
SELECT pg_temp.advance('1 microsecond') \g /dev/null
SET LOCAL ROLE backend_worker;
SELECT is(worker.enrollments_close(100), 1, 'at its end it is');
SELECT is(worker.enrollments_close(100), 0, 'once');
RESET ROLE;
SELECT is(pg_temp.state(:'full_one'), 'ready_to_start', 'where there are enough members');
SELECT is(pg_temp.state(:'empty_one'), 'enrollment_open', 'others have a day');
SELECT is(pg_temp.state(:'draft'), 'draft', 'a draft is nobody''s business');
SELECT is((SELECT array_agg(DISTINCT status) FROM backend.invites WHERE game_id = :'full_one'), ARRAY['revoked'], 'nobody comes in any more');
SELECT results_eq(
    format('SELECT action, actor_type, actor_id FROM backend.game_history WHERE game_id = %L ORDER BY history_id DESC LIMIT 1', :'full_one'),
    $$VALUES ('ready-to-start', 'sweeper', NULL::text)$$, 'the history says who it was');
-- In which the owner may extend it, and nothing else.
SELECT throws_ok(format('SELECT api.game_update(%L, %L, ''{"min_players": 2}'')', :'ann', :'empty_one'), 'GX409', 'invalid_transition', 'the number of seats stays');
SELECT throws_ok(format('SELECT api.game_update(%L, %L, %L)', :'ann', :'empty_one', jsonb_build_object('enrollment_ends_at', backend.ts(backend.now()))), 'GX400', 'invalid_request', 'an end is to come');
SELECT pg_temp.undone(format('SELECT api.game_update(%L, %L, ''{"enrollment_ends_at": "2999-01-01T00:00:00Z"}'')', :'ann', :'empty_one'),
                      format('SELECT worker.enrollments_close(100) || '' '' || pg_temp.state(%L)', :'empty_one')) AS extended \gset
SELECT is(:'extended'::text, '0 enrollment_open', 'enrolment that is extended goes on');
SELECT pg_temp.advance(interval '1 day' - interval '1 microsecond') \g /dev/null
SET LOCAL ROLE backend_worker;
SELECT is(worker.enrollments_close(100), 0, 'to the last microsecond of the day');
RESET ROLE;
SELECT pg_temp.advance('1 microsecond') \g /dev/null
DELETE FROM backend.notification_routes;
DELETE FROM backend.notifications;
SET LOCAL ROLE backend_worker;
SELECT is(worker.enrollments_close(1), 1, 'no more are closed than are asked for');
SELECT is(worker.enrollments_close(100), 1, 'then the rest');
RESET ROLE;
SELECT is((SELECT status || ' ' || status_reason FROM backend.games WHERE game_id = g::uuid), 'cancelled not_enough_members', 'a game that nobody comes to is cancelled')
  FROM unnest(ARRAY[:'empty_one', :'public']) AS g;
SELECT results_eq(
    'SELECT kind, user_id, payload ->> ''reason'' FROM backend.notifications WHERE kind <> ''diplomail.received'' ORDER BY kind',
    format($$VALUES ('lobby.application.rejected', %L::uuid, NULL), ('lobby.membership.removed', %L, 'game_cancelled')$$, :'eve', :'cid'), 'who waited is told');
SELECT is((SELECT count(*) FROM backend.race_names WHERE user_id = :'cid' AND released_at IS NULL), 0::bigint, 'names are free');

-- Invites.
SELECT (api.invite_create(:'ann', :'draft', jsonb_build_object('invited_user_id', :'eve'), NULL, NULL)).status \g /dev/null
SELECT (api.invite_create(:'ann', :'draft', '{}', 'ABC', sha256('ABC'))).status \g /dev/null
SELECT pg_temp.advance('7 days') \g /dev/null
SET LOCAL ROLE backend_worker;
SELECT is(worker.invites_expire(n), 1, 'invites are over, so many at once') FROM (VALUES (1), (1)) AS t(n);
SELECT is(worker.invites_expire(1), 0, 'once');
RESET ROLE;

-- Counts of wrong codes.
SELECT api.invite_redeem_by_code(:'bob', '{"race_name": "Betas"}', sha256('nothing')) \g /dev/null
SELECT pg_temp.advance('1 hour') \g /dev/null
SELECT is(worker.invite_attempts_purge(10), 1, 'a count that is over is deleted');

SELECT * FROM finish();
ROLLBACK;
