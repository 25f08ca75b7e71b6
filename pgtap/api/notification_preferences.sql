-- Test galaxy-backend:api/notification_preferences

BEGIN;
SELECT plan(35);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], volatility text);
INSERT INTO functions VALUES
    ('notification_preferences_get', ARRAY['uuid']::name[], 'stable'),
    ('notification_preferences_set', ARRAY['uuid', 'jsonb']::name[], 'volatile');
SELECT function_returns('api', name, arguments, 'text', format('%s() answers text', name)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob') AS bob \gset
CREATE FUNCTION pg_temp.choose(p_user_id uuid, p_channels jsonb, p_turn_reminder text DEFAULT 'off') RETURNS jsonb LANGUAGE sql
RETURN api.notification_preferences_set(p_user_id, jsonb_build_object('channels', p_channels, 'turn_reminder', p_turn_reminder))::jsonb;
SET LOCAL ROLE backend_api;
SELECT api.notification_preferences_get(:'ann') AS at_first \gset
RESET ROLE;
SELECT is(:'at_first'::jsonb ->> 'turn_reminder', 'off', 'by itself nobody is reminded of turns');
SELECT set_eq(
    format('SELECT jsonb_object_keys(%L::jsonb -> ''channels'')', :'at_first'), 'SELECT kind FROM backend.notification_kinds WHERE is_optional', 'each kind that can be chosen is shown');
SELECT is(:'at_first'::jsonb #> '{channels,game.started}', '{"push": true, "email": true}', 'and wanted');
SELECT is(:'at_first'::jsonb #> '{channels,game.paused}', '{"push": true}', 'by the channels that it has');
SELECT is(
    pg_temp.choose(:'ann', '{"game.started": {"email": false}, "game.paused": {"push": false}, "game.finished": {"push": true}, "lobby.invite.received": {}}', 'daily') - 'channels',
    '{"turn_reminder": "daily"}', 'what is wanted is said');
SELECT set_eq(
    format('SELECT kind, channel FROM backend.notification_opt_outs WHERE user_id = %L', :'ann'), $$VALUES ('game.started', 'email'), ('game.paused', 'push')$$, 'and what is not, kept');
SELECT is(api.notification_preferences_get(:'ann')::jsonb #> '{channels,game.started}', '{"push": true, "email": false}', 'and shown');
SELECT is(pg_temp.choose(:'ann', api.notification_preferences_get(:'ann')::jsonb -> 'channels', 'daily'), api.notification_preferences_get(:'ann')::jsonb, 'what is shown can be said again');
SELECT is(api.notification_preferences_get(:'bob')::jsonb, :'at_first'::jsonb, 'it is nobody else''s');
SELECT is(pg_temp.choose(:'ann', '{}'), :'at_first'::jsonb, 'what is not named is wanted again');

-- What cannot be chosen.
SELECT is(
    (pg_temp.refused(format('SELECT pg_temp.choose(%L, %L)', :'ann', c)) ->> 'hint')::jsonb, jsonb_build_array(jsonb_build_object('path', p, 'problem', w)), d)
  FROM (VALUES
    ('{"nobody.knows": {"push": true}}', 'channels.nobody.knows', 'is not a kind that can be chosen', 'a kind that is not there'),
    ('{"mail.dead_lettered": {"email": false}}', 'channels.mail.dead_lettered', 'is not a kind that can be chosen', 'one of administrators'),
    ('{"lobby.membership.blocked": {}}', 'channels.lobby.membership.blocked', 'is not a kind that can be chosen', 'what was decided about people'),
    ('{"game.paused": {"email": true}}', 'channels.game.paused.email', 'is not a channel of this kind', 'a channel that it has not')
  ) AS t(c, p, w, d);
SELECT pg_temp.choose(:'bob', '{"game.started": {"email": false}}', 'each') \g /dev/null
SELECT throws_ok(format($$SELECT pg_temp.choose(%L, '{"game.finished": {"email": false}, "x.y": {}}')$$, :'bob'), 'GX400', 'invalid_request', 'what is wrong in a part');
SELECT is(api.notification_preferences_get(:'bob')::jsonb #> '{channels,game.finished,email}', 'true', 'changes nothing');

-- What waits follows.
SELECT backend.notification_submit('game.turn.ready', 'k', :'bob', '{"game_id": "0197f3a2-0000-7000-8000-000000000001", "turn": 1}') \g /dev/null
SELECT pg_temp.choose(:'bob', '{}', 'off') \g /dev/null
SELECT results_eq($$SELECT status, last_error FROM backend.notification_routes WHERE channel = 'email'$$, $$VALUES ('skipped', 'it is not wanted')$$, 'a reminder that is not wanted any more is not sent');
SELECT pg_temp.choose(:'bob', '{}', 'daily') \g /dev/null
SELECT backend.notification_submit('game.turn.ready', 'l', :'bob', '{"game_id": "0197f3a2-0000-7000-8000-000000000001", "turn": 2}') \g /dev/null
SELECT api.my_settings_update(:'bob', '{"time_zone": "Asia/Tokyo"}') \g /dev/null
SELECT results_eq(
    $$SELECT is_digest, to_char(next_attempt_at AT TIME ZONE 'Asia/Tokyo', 'HH24:MI') FROM backend.notification_routes WHERE status = 'pending'$$, $$VALUES (true, '08:00')$$,
    'the mail of the day moves with its person');

-- For whom.
SELECT throws_ok(format(c, gen_random_uuid()), 'GX404', 'account_not_found', 'it is for people')
  FROM unnest(ARRAY['SELECT api.notification_preferences_get(%L)', $$SELECT pg_temp.choose(%L, '{}')$$]) AS c;
SELECT pg_temp.sanction(:'ann', 'login_block') \g /dev/null
SELECT throws_ok(format('SELECT api.notification_preferences_get(%L)', :'ann'), 'GX403', 'sanctioned', 'who may sign in');

UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'ann';
SELECT throws_ok(format($$SELECT pg_temp.choose(%L, '{}')$$, :'ann'), 'GX403', 'account_blocked', 'who is not blocked');
UPDATE backend.accounts SET permanent_block = false, deleted_at = backend.now(), email = NULL WHERE user_id = :'ann';
SELECT throws_ok(format($$SELECT pg_temp.choose(%L, '{}')$$, :'ann'), 'GX403', 'account_deleted', 'who is there');

SELECT * FROM finish();
ROLLBACK;
