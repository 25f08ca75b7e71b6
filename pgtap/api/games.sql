-- Test galaxy-backend:api/games

BEGIN;
\ir ../helpers.psql
\ir ../games.psql

CREATE TEMPORARY TABLE commands (name text, action text);
INSERT INTO commands VALUES
    ('game_open_enrollment', 'open-enrollment'), ('game_ready_to_start', 'ready-to-start'), ('game_start', 'start'), ('game_retry_start', 'retry-start'),
    ('game_pause', 'pause'), ('game_resume', 'resume'), ('game_cancel', 'cancel');
CREATE TEMPORARY VIEW states AS SELECT DISTINCT to_state AS state FROM backend.state_transitions WHERE machine = 'game';
SELECT plan(282 + (SELECT count(*)::integer * 3 FROM states, commands));

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], returns text, volatility text);
INSERT INTO functions VALUES
    ('game_create', ARRAY['uuid', 'jsonb'], 'api.reply', 'volatile'), ('game_get', ARRAY['uuid', 'uuid'], 'text', 'stable'),
    ('game_list', ARRAY['uuid', 'integer', 'text', 'text[]', 'text'], 'text', 'stable'), ('game_update', ARRAY['uuid', 'uuid', 'jsonb'], 'text', 'volatile'),
    ('game_action_list', ARRAY['uuid', 'uuid'], 'text', 'stable'),
    ('my_game_list', ARRAY['uuid', 'integer', 'text'], 'text', 'stable'), ('game_history_list', ARRAY['uuid', 'uuid', 'integer', 'text'], 'text', 'stable');
INSERT INTO functions SELECT name, ARRAY['uuid', 'uuid'], 'text', 'volatile' FROM commands;
SELECT function_returns('api', name, arguments, returns, format('%s() answers %s', name, returns)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

SELECT pg_temp.person('ann', 'monthly') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('eve') AS eve, gen_random_uuid() AS nobody \gset
SELECT pg_temp.set_limit(:'ann', 'max_owned_private_games', 50), pg_temp.set_limit(:'ann', 'max_active_memberships', 50),
       pg_temp.set_limit(:'bob', 'max_active_memberships', 50) \g /dev/null

-- Every command in every state that a game came to by itself: its owner, a member, somebody who does not see it.
CREATE TEMPORARY TABLE at_state (state text PRIMARY KEY, game_id uuid);
DO $$
DECLARE
    v_ann uuid := (SELECT user_id FROM backend.accounts WHERE email = 'ann@example.org');
    v_bob uuid := (SELECT user_id FROM backend.accounts WHERE email = 'bob@example.org');
    v_state text;
    v_game_id uuid;
BEGIN
    FOR v_state IN SELECT state FROM pg_temp.states LOOP
        v_game_id := pg_temp.game(v_ann, '{"race_name": "Alphas"}');
        PERFORM pg_temp.join(v_game_id, v_bob, 'Betas');
        INSERT INTO at_state VALUES (v_state, v_game_id);
        ASSERT pg_temp.bring(v_game_id, v_state) = v_state;
    END LOOP;
END;
$$;
SELECT is(
    pg_temp.undone(format('SELECT api.%I(%L, %L)', c.name, :'ann', s.game_id), format('SELECT pg_temp.state(%L)', s.game_id)),
    coalesce(e.to_state, 'GX409 invalid_transition'), format('%s of a game that is %s', c.name, s.state))
  FROM at_state AS s CROSS JOIN commands AS c
  LEFT JOIN backend.state_transitions AS e ON e.machine = 'game' AND e.action = c.action AND e.from_state = s.state
 ORDER BY s.state, c.name;
SELECT is(
    pg_temp.undone(format('SELECT api.%I(%L, %L)', c.name, :'bob', s.game_id), 'SELECT 1'), 'GX403 forbidden',
    format('%s of a game that is %s is not a member''s to do', c.name, s.state))
  FROM at_state AS s CROSS JOIN commands AS c ORDER BY s.state, c.name;
SELECT is(
    pg_temp.undone(format('SELECT api.%I(%L, %L)', c.name, :'eve', s.game_id), 'SELECT 1'), 'GX404 game_not_found',
    format('%s of a game that is %s: for others it is not there', c.name, s.state))
  FROM at_state AS s CROSS JOIN commands AS c ORDER BY s.state, c.name;
SELECT is_empty('SELECT * FROM backend.invariants', 'nothing is wrong in any state');
SELECT (SELECT game_id FROM at_state WHERE state = 'draft') AS draft, (SELECT game_id FROM at_state WHERE state = 'running') AS running,
       (SELECT game_id FROM at_state WHERE state = 'paused') AS paused, (SELECT game_id FROM at_state WHERE state = 'ready_to_start') AS ready,
       (SELECT game_id FROM at_state WHERE state = 'start_failed') AS failed \gset
SELECT is(
    pg_temp.refused(format('SELECT api.game_start(%L, %L)', :'ann', :'running')) ->> 'hint', '{"from": "running", "action": "start", "allowed": ["pause"]}',
    'a refused transition says what is allowed');
SELECT throws_ok(format('SELECT api.game_start(%L, %L)', :'ann', :'running'), 'GX409', 'invalid_transition', 'by its code');
SELECT throws_ok(format('SELECT api.game_start(%L, %L)', :'bob', :'running'), 'GX403', 'forbidden', 'after whose game it is');
SELECT pg_temp.sanction(:'ann', 'private_game_manage_block') \g /dev/null
SELECT throws_ok(format('SELECT api.%I(%L, %L)', name, :'ann', :'draft'), 'GX403', 'sanctioned', format('%s is not for an owner under a block', name)) FROM commands;
DELETE FROM backend.sanction_active;
UPDATE backend.engine_versions SET enabled = false;
SELECT throws_ok(format('SELECT api.%I(%L, %L)', f, :'ann', g), 'GX422', 'engine_version_unavailable', format('%s needs an engine that is enabled', f))
  FROM (VALUES ('game_open_enrollment', :'draft'), ('game_start', :'ready'), ('game_retry_start', :'failed')) AS t(f, g);
UPDATE backend.engine_versions SET enabled = true;
UPDATE backend.games SET min_players = 3 WHERE status = 'enrollment_open';
SELECT throws_ok(format('SELECT api.game_ready_to_start(%L, %L)', :'ann', (SELECT game_id FROM at_state WHERE state = 'enrollment_open')), 'GX422', 'not_enough_members',
    'enrolment closes with enough members');
UPDATE backend.runtime_records SET status = 'engine_unreachable' WHERE game_id = :'paused';
SELECT throws_ok(format('SELECT api.game_resume(%L, %L)', :'ann', :'paused'), 'GX422', 'engine_not_healthy', 'a game goes on with an engine that is well');
UPDATE backend.games SET enrollment_ends_at = backend.now() WHERE game_id = :'draft';
SELECT throws_ok(format('SELECT api.game_open_enrollment(%L, %L)', :'ann', :'draft'), 'GX422', 'enrollment_ended', 'enrolment opens before its end');

-- As the program calls them.
SET LOCAL ROLE backend_api;
SELECT is(api.game_pause(:'ann', :'running')::jsonb ->> 'status_reason', 'by_owner', 'a command answers with the game');
SELECT api.game_resume(:'ann', :'running') AS resumed \gset
SELECT is(:'resumed'::jsonb, api.game_get(:'ann', :'running')::jsonb, 'as it is then');
RESET ROLE;

-- One game.
SELECT is(api.game_get(u::uuid, :'draft')::jsonb ->> 'game_id', :'draft', d) FROM (VALUES (:'ann', 'its owner sees a game'), (:'bob', 'a member too')) AS t(u, d);
SELECT throws_ok(format('SELECT api.game_get(%L, %L)', :'eve', :'draft'), 'GX404', 'game_not_found', 'others do not');
SELECT throws_ok(format('SELECT api.game_get(%L, %L)', :'ann', :'nobody'), 'GX404', 'game_not_found', 'one that is not there is nobody''s');
SELECT (api.invite_create(:'ann', :'draft', jsonb_build_object('invited_user_id', :'eve'), NULL, NULL)).status \g /dev/null
SELECT is(api.game_get(:'eve', :'draft')::jsonb ->> 'game_id', :'draft', 'who is invited sees it');
SELECT throws_ok(format('SELECT api.game_cancel(%L, %L)', :'eve', :'draft'), 'GX403', 'forbidden', 'but does not run it');

-- A new one.
CREATE TEMPORARY TABLE made AS SELECT (r).* FROM (SELECT api.game_create(:'cid', pg_temp.body('{"race_name": "Gammas", "description": "d"}')) AS r OFFSET 0) AS t;
SELECT body::jsonb ->> 'game_id' AS made FROM made \gset
SELECT is((SELECT status FROM made), 201, 'a game is created');
SELECT is((SELECT location FROM made), '/api/v1/user/lobby/games/' || :'made', 'and is found there');
SELECT is((SELECT body::jsonb FROM made), api.game_get(:'cid', :'made')::jsonb, 'the answer is the game');
SELECT is(
    (SELECT body::jsonb - 'game_id' FROM made),
    jsonb_build_object('game_name', 'Test', 'description', 'd', 'visibility', 'private', 'status', 'draft', 'status_reason', NULL, 'owner_user_id', :'cid', 'min_players', 2,
                       'max_players', 4, 'member_count', 1, 'enrollment_ends_at', backend.ts(backend.now() + interval '30 days'), 'turn_schedule', '0 * * * *',
                       'target_engine_version', '1.2.0', 'current_turn', NULL, 'next_turn_at', NULL, 'runtime_status', NULL, 'created_at', backend.ts(backend.now()),
                       'started_at', NULL, 'finished_at', NULL), 'private, in draft, with a seat for its owner');
SELECT results_eq(
    format('SELECT user_id, race_name FROM backend.memberships WHERE game_id = %L', :'made'), format($$VALUES (%L::uuid, 'Gammas')$$, :'cid'), 'who gave a name');
SELECT is(
    pg_temp.refused(format('SELECT api.game_create(%L, %L)', :'cid', pg_temp.body())) ->> 'hint', '{"limit": "max_owned_private_games", "value": 1}',
    'nobody owns more than they may, and is told how many');
SELECT throws_ok(format('SELECT api.game_create(%L, %L)', :'cid', pg_temp.body()), 'GX422', 'limit_reached', 'by its code');
SELECT throws_ok(format('SELECT api.game_create(%L, %L)', :'cid', pg_temp.body('{"turn_schedule": "often"}')), 'GX400', 'invalid_request', 'what is malformed is told first');
SELECT api.game_cancel(:'cid', :'made') \g /dev/null
SELECT lives_ok(format('SELECT api.game_create(%L, %L)', :'cid', pg_temp.body()), 'a game that is cancelled does not count');
SELECT throws_ok(format('SELECT api.game_create(%L, %L)', :'eve', pg_temp.body(m::jsonb)), 'GX' || s, c, d)
  FROM (VALUES
    ('{"race_name": "x"}', '422', 'invalid_name', 'an owner''s name is a name'),
    ('{"race_name": "alphas"}', '422', 'name_taken', 'that is free'),
    ('{"game_name": " "}', '400', 'invalid_request', 'a game has a name'),
    ('{"target_engine_version": "9.9.9"}', '400', 'invalid_request', 'and an engine')) AS t(m, s, c, d);
SELECT throws_ok(format('SELECT api.game_create(%L, %L)', :'eve', pg_temp.body('{"race_name": "x"}')), 'GX422', 'invalid_name', 'a name that is none');
SELECT throws_ok(format('SELECT api.game_create(%L, %L)', :'eve', pg_temp.body('{"race_name": "alphas"}')), 'GX422', 'name_taken', 'a name that is taken');
SELECT is((SELECT count(*) FROM backend.games WHERE owner_user_id = :'eve'), 0::bigint, 'a refusal leaves no game');
SELECT pg_temp.sanction(:'eve', 'private_game_create_block') \g /dev/null
SELECT throws_ok(format('SELECT api.game_create(%L, %L)', :'eve', pg_temp.body()), 'GX403', 'sanctioned', 'nobody under a block creates one');
DELETE FROM backend.sanction_active;
SELECT pg_temp.sanction(:'eve', 'game_join_block') \g /dev/null
SELECT throws_ok(format('SELECT api.game_create(%L, %L)', :'eve', pg_temp.body('{"race_name": "Etas"}')), 'GX403', 'sanctioned', 'nor takes a seat in it under another');
SELECT is(pg_temp.undone(format('SELECT api.game_create(%L, %L)', :'eve', pg_temp.body()), 'SELECT ''done'''), 'done', 'which does not keep them from owning one');
DELETE FROM backend.sanction_active;
SELECT pg_temp.set_limit(:'eve', 'max_active_memberships', 0) \g /dev/null
SELECT throws_ok(format('SELECT api.game_create(%L, %L)', :'eve', pg_temp.body('{"race_name": "Etas"}')), 'GX422', 'limit_reached', 'nor with as many seats as they may have');
DELETE FROM backend.limit_active WHERE user_id = :'eve';
UPDATE backend.engine_versions SET enabled = false;
SELECT throws_ok(format('SELECT api.game_create(%L, %L)', :'eve', pg_temp.body()), 'GX422', 'engine_version_unavailable', 'nor without an engine');
UPDATE backend.engine_versions SET enabled = true;

-- Codes that a new game shares with the taking of any seat, and has no way to: its owner has none in it yet.
SELECT throws_ok(format('SELECT backend.seat_take(g, %L, ''Alphas'') FROM backend.games AS g WHERE g.game_id = %L', :'ann', :'draft'), 'GX409', 'already_member', 'for its owner too');
UPDATE backend.games SET max_players = 2 WHERE game_id = :'draft';
SELECT throws_ok(format('SELECT backend.seat_take(g, %L, ''Etas'') FROM backend.games AS g WHERE g.game_id = %L', :'eve', :'draft'), 'GX422', 'game_full', 'a game can be full');
UPDATE backend.memberships SET status = 'blocked', ended_at = backend.now() WHERE game_id = :'draft' AND user_id = :'bob';
SELECT throws_ok(format('SELECT backend.seat_take(g, %L, ''Betas'') FROM backend.games AS g WHERE g.game_id = %L', :'bob', :'draft'), 'GX422', 'eligibility_denied', 'and closed to one');

-- My games.
CREATE FUNCTION pg_temp.ids(p_page text) RETURNS uuid[]
LANGUAGE sql
RETURN (SELECT coalesce(array_agg((i ->> 'game_id')::uuid ORDER BY n), '{}') FROM jsonb_array_elements(p_page::jsonb -> 'items') WITH ORDINALITY AS t(i, n));
SELECT is(
    pg_temp.ids(api.my_game_list(:'ann', 50, NULL)), (SELECT array_agg(game_id ORDER BY game_id DESC) FROM backend.games WHERE owner_user_id = :'ann'),
    'an owner''s games, newest first');
SELECT is(
    pg_temp.ids(api.my_game_list(:'bob', 50, NULL)), (SELECT array_agg(game_id ORDER BY game_id DESC) FROM backend.memberships WHERE user_id = :'bob' AND status = 'active'),
    'a member''s games, without one that they are blocked in');
SELECT is(pg_temp.ids(api.my_game_list(:'eve', 50, NULL)), '{}', 'somebody who is only invited has none');
SELECT is(api.my_game_list(:'ann', 1, NULL)::jsonb -> 'items' -> 0, api.game_get(:'ann', (pg_temp.ids(api.my_game_list(:'ann', 1, NULL)))[1])::jsonb, 'each as it is by itself');
SELECT api.my_game_list(:'ann', 4, NULL) AS page1 \gset
SELECT api.my_game_list(:'ann', 4, :'page1'::jsonb ->> 'next_cursor') AS page2 \gset
SELECT api.my_game_list(:'ann', 4, :'page2'::jsonb ->> 'next_cursor') AS page3 \gset
SELECT is(pg_temp.ids(:'page1') || pg_temp.ids(:'page2') || pg_temp.ids(:'page3'), pg_temp.ids(api.my_game_list(:'ann', 50, NULL)), 'pages are the list');
SELECT is(:'page3'::jsonb -> 'next_cursor', 'null', 'the last says that it is');
SELECT throws_ok(format('SELECT api.my_game_list(%L, 2, %L)', :'bob', :'page1'::jsonb ->> 'next_cursor'), 'GX400', 'invalid_cursor', 'a cursor is of one person''s list');
SELECT throws_ok(
    format('SELECT api.my_game_list(%L, 2, %L)', :'ann', backend.cursor_make('my_game_list:' || :'ann', 'no uuid')), 'GX400', 'invalid_cursor', 'and leads somewhere');

-- A game's history.
SELECT is(
    (SELECT array_agg(i ->> 'action' ORDER BY n) FROM jsonb_array_elements(api.game_history_list(u::uuid, :'running', 50, NULL)::jsonb -> 'items') WITH ORDINALITY AS t(i, n)),
    ARRAY['create', 'open-enrollment', 'ready-to-start', 'start', 'runtime-started', 'pause', 'resume'], d)
  FROM (VALUES (:'ann', 'an owner reads what has happened, oldest first'), (:'bob', 'a member too')) AS t(u, d);
SELECT is(
    api.game_history_list(:'ann', :'running', 2, NULL)::jsonb -> 'items' -> 1,
    jsonb_build_object('action', 'open-enrollment', 'from_status', 'draft', 'to_status', 'enrollment_open', 'actor_type', 'user', 'actor_id', :'ann', 'at', backend.ts(backend.now())),
    'each as the contract says');
SELECT api.game_history_list(:'ann', :'running', 5, NULL)::jsonb ->> 'next_cursor' AS cursor \gset
SELECT is(jsonb_array_length(api.game_history_list(:'ann', :'running', 5, :'cursor')::jsonb -> 'items'), 2, 'in pages');
SELECT throws_ok(format('SELECT api.game_history_list(%L, %L, 5, %L)', :'ann', :'paused', :'cursor'), 'GX400', 'invalid_cursor', 'a cursor is of one game''s history');
SELECT throws_ok(format('SELECT api.game_history_list(%L, %L, 5, NULL)', :'eve', :'draft'), 'GX403', 'forbidden', 'who is only invited does not read it');
SELECT throws_ok(format('SELECT api.game_history_list(%L, %L, 5, NULL)', :'cid', :'draft'), 'GX404', 'game_not_found', 'for others there is nothing');

-- Public games in pages, changes, and what may be done.
SELECT pg_temp.public_game(:'ann', jsonb_build_object('game_name', 'Public ' || n)) FROM generate_series(1, 5) AS n \g /dev/null
SELECT api.game_list(:'eve', 3, NULL, NULL, 'PUB') AS page1 \gset
SELECT is(
    pg_temp.ids(:'page1') || pg_temp.ids(api.game_list(:'eve', 3, :'page1'::jsonb ->> 'next_cursor', NULL, 'PUB')),
    (SELECT array_agg(game_id ORDER BY game_id DESC) FROM backend.games WHERE visibility = 'public'), 'public games, newest first, in pages');
SELECT throws_ok(format('SELECT api.game_list(%L, 3, %L, NULL, NULL)', :'eve', :'page1'::jsonb ->> 'next_cursor'), 'GX400', 'invalid_cursor', 'a cursor is of one search');
SELECT is(pg_temp.ids(api.game_list(:'eve', 50, NULL, '{running,paused}', NULL)), '{}', 'of these statuses');
SELECT is(api.game_update(:'ann', :'failed', '{"turn_schedule": " 5 4 * * sun "}')::jsonb ->> 'turn_schedule', '5 4 * * sun', 'a schedule is changed until the start');
SELECT throws_ok(format('SELECT api.game_update(%L, %L, ''{"turn_schedule": "5 4 * * sun"}'')', :'ann', :'running'), 'GX409', 'invalid_transition', 'and not after');
SELECT is(
    (pg_temp.refused(format('SELECT api.game_update(%L, %L, ''{"max_players": 9, "description": "x"}'')', :'ann', :'ready')) ->> 'hint')::jsonb,
    '{"from": "ready_to_start", "action": "update", "allowed": ["game_name", "description", "turn_schedule"]}', 'who changes too much is told what they may');
SELECT throws_ok(format('SELECT api.game_update(%L, %L, ''{"description": "x"}'')', u, g), s, c, d)
  FROM (VALUES (:'bob', :'ready', 'GX403', 'forbidden', 'a member changes nothing'), (:'cid', :'ready', 'GX404', 'game_not_found', 'for others there is no game')) AS t(u, g, s, c, d);
SELECT throws_ok(format('SELECT api.game_update(%L, %L, %L)', :'ann', :'draft', b), 'GX400', 'invalid_request', d)
  FROM (VALUES ('{"game_name": "\u200b"}', 'a name can be seen'), ('{"target_engine_version": "9.9.9"}', 'an engine is there'), ('{"min_players": 64, "max_players": 2}', 'numbers fit')) AS t(b, d);
SELECT pg_temp.sanction(:'ann', 'private_game_manage_block') \g /dev/null
SELECT throws_ok(format('SELECT api.game_update(%L, %L, ''{"description": "x"}'')', :'ann', :'ready'), 'GX403', 'sanctioned', 'nor does an owner under a block');
DELETE FROM backend.sanction_active;
-- What is said to be allowed is what is done.
SELECT is(
    (SELECT coalesce(i -> 'reason' ->> 'code', i ->> 'to') FROM jsonb_array_elements(api.game_action_list(:'ann', s.game_id)::jsonb -> 'items') AS i WHERE i ->> 'action' = c.action),
    regexp_replace(pg_temp.undone(format('SELECT api.%I(%L, %L)', c.name, :'ann', s.game_id), format('SELECT pg_temp.state(%L)', s.game_id)), '^GX... ', ''),
    format('%s of a game that is %s is told as it is done', c.action, s.state))
  FROM at_state AS s CROSS JOIN commands AS c ORDER BY s.state, c.action;
SELECT is(
    (SELECT string_agg(i ->> 'action', ' ' ORDER BY n) FROM jsonb_array_elements(api.game_action_list(:'ann', :'running')::jsonb -> 'items') WITH ORDINALITY AS u(i, n)),
    (SELECT string_agg(DISTINCT action, ' ' ORDER BY action) FROM backend.state_transitions WHERE machine = 'game' AND from_state IS NOT NULL), 'every action is there, once');
SELECT is((SELECT DISTINCT i ->> 'allowed' FROM jsonb_array_elements(api.game_action_list(:'bob', :'running')::jsonb -> 'items') AS i), 'false', 'a member may do nothing');
SELECT throws_ok(format('SELECT api.game_action_list(%L, %L)', :'cid', :'draft'), 'GX404', 'game_not_found', 'for others there is no game');

-- Those who may not.
CREATE TEMPORARY TABLE calls (name text, call text);
INSERT INTO calls VALUES
    ('game_create', format('SELECT api.game_create(%%L, %L)', pg_temp.body())), ('game_get', format('SELECT api.game_get(%%L, %L)', :'draft')),
    ('my_game_list', 'SELECT api.my_game_list(%L, 50, NULL)'), ('game_list', 'SELECT api.game_list(%L, 50, NULL, NULL, NULL)'),
    ('game_update', format('SELECT api.game_update(%%L, %L, ''{"description": "x"}'')', :'draft')), ('game_action_list', format('SELECT api.game_action_list(%%L, %L)', :'draft')),
    ('game_history_list', format('SELECT api.game_history_list(%%L, %L, 50, NULL)', :'draft'));
INSERT INTO calls SELECT name, format('SELECT api.%I(%%L, %L)', name, :'draft') FROM commands;
SELECT throws_ok(format(call, :'nobody'), 'GX404', 'account_not_found', format('%s is for somebody', name)) FROM calls;
SELECT pg_temp.sanction(:'ann', 'login_block') \g /dev/null
SELECT throws_ok(format(call, :'ann'), 'GX403', 'sanctioned', format('%s is for somebody who may sign in', name)) FROM calls;
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'ann';
SELECT throws_ok(format(call, :'ann'), 'GX403', 'account_blocked', format('%s is for nobody who is blocked', name)) FROM calls;
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'ann';
SELECT throws_ok(format(call, :'ann'), 'GX403', 'account_deleted', format('%s is for nobody who is gone', name)) FROM calls;

SELECT * FROM finish();
ROLLBACK;
