-- Test galaxy-backend:backend/runtime_rules

BEGIN;
SELECT plan(34);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('runtime_held', 'volatile'), ('runtime_operation_end', 'volatile'), ('runtime_snapshot', 'volatile'), ('runtime_json', 'stable'),
               ('runtime_operation_begin', 'volatile'), ('runtime_operation_done', 'volatile'), ('runtime_health_note', 'volatile'), ('runtime_restart', 'volatile'),
               ('runtime_failure_tell', 'volatile'), ('runtime_queue_require', 'stable'), ('runtime_of_running_game', 'volatile'), ('runtime_logs_json', 'stable')) AS t(f, v);
SET LOCAL ROLE backend_worker;
SELECT throws_ok($$SELECT backend.runtime_snapshot(gen_random_uuid(), 1, '[]', 1)$$, '42501', NULL, 'backend_worker reports through its door only');
RESET ROLE;

SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob \gset
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas"}') AS game, gen_random_uuid() AS nowhere \gset
SELECT pg_temp.join(:'game', :'bob', 'Betas') \g /dev/null
SELECT pg_temp.bring(:'game', 'starting') \g /dev/null

-- Whose word counts.
SELECT is((backend.runtime_held(:'game', 0)).game_id, NULL, 'nobody has a lease that none was given');
SELECT lease_number AS lease FROM worker.runtime_start_claim(:'game', 60) \gset
SELECT is((backend.runtime_held(:'game', :lease)).game_id, :'game', 'who was given one has it');
SELECT is((backend.runtime_held(:'game', :lease + n)).game_id, NULL, format('another number (%s) is none', n)) FROM unnest(ARRAY[-1, 1]) AS n;
SELECT is((backend.runtime_held(:'nowhere', :lease)).game_id, NULL, 'nor is one of a game that is not there');
SELECT is((backend.runtime_held(:'game', NULL)).game_id, NULL, 'nor is none');
SELECT pg_temp.advance('1 hour') \g /dev/null
SELECT is((backend.runtime_held(:'game', :lease)).game_id, :'game', 'one that has run out counts while nobody else was given another');
SELECT lease_number AS newer FROM worker.runtime_start_claim(:'game', 60) \gset
SELECT is((backend.runtime_held(:'game', :lease)).game_id, NULL, 'and then not');

-- What is written of an operation.
SELECT backend.runtime_operation_end(:'game', :newer, 'failed', repeat('x', 2000)) \g /dev/null
SELECT results_eq(
    'SELECT operation, generation, lease_number, finished_at, outcome, length(error) FROM backend.runtime_operation_log ORDER BY operation_id',
    format($$VALUES ('start', 1, %s::bigint, backend.now(), 'failed', 31), ('start', 1, %s, backend.now(), 'failed', 1000)$$, :lease, :newer),
    'an operation ends with its lease, its error is cut; one whose worker is gone ends with the next');
SELECT backend.runtime_operation_end(:'game', :newer, 'done', NULL) \g /dev/null
SELECT is((SELECT outcome FROM backend.runtime_operation_log WHERE lease_number = :newer), 'failed', 'what came of it stays');

SELECT backend.runtime_operation_done(pg_temp.runtime(:'game'), 'start', e) FROM unnest(ARRAY['no room', 'no room', repeat('y', 2000), repeat('y', 2000), NULL, NULL, 'no room']) AS e \g /dev/null
SELECT results_eq(
    format($$SELECT outcome, left(error, 7) FROM backend.runtime_operation_log WHERE game_id = %L AND operation_id > (SELECT max(o.operation_id::text)::uuid FROM backend.runtime_operation_log AS o WHERE o.lease_number = %s AND o.outcome = 'failed' AND o.error LIKE 'x%%') ORDER BY operation_id$$, :'game', :newer),
    $$VALUES ('failed', 'no room'), ('failed', 'yyyyyyy'), ('done', NULL), ('done', NULL), ('failed', 'no room')$$, 'what fails again and again in the same way is written down once');

SELECT count(*) AS operations FROM backend.runtime_operation_log \gset
SELECT backend.runtime_operation_done(pg_temp.runtime(:'game'), 'start', e) FROM unnest(ARRAY[E'it has ended:\n12:01 why', E'it has ended:\n12:02 why']) AS e \g /dev/null
SELECT is((SELECT count(*) FROM backend.runtime_operation_log) - :operations, 1::bigint, 'whatever the engine wrote meanwhile');

-- Administrators are told.
SELECT backend.runtime_failure_tell(pg_temp.runtime(:'game'), k, e)
  FROM (VALUES ('image_pull_failed', 'x'), ('start_config_invalid', ''), ('container_start_failed', 'x'), ('container_start_failed', 'x')) AS t(k, e) \g /dev/null
SELECT results_eq(
    $$SELECT kind, payload - 'game_id' FROM backend.notifications WHERE kind LIKE 'runtime.%' ORDER BY kind$$,
    $$VALUES ('runtime.container_start_failed', '{}'::jsonb), ('runtime.image_pull_failed', '{"image_ref": "galaxy/engine:1.2.0"}'), ('runtime.start_config_invalid', '{"reason": "not told"}')$$,
    'why an engine does not start is told once');

-- Health is stored where it is another than before.
SELECT backend.runtime_health_note(:'game', h, d) FROM (VALUES (true, NULL), (true, NULL), (false, 'x'), (false, 'x'), (false, repeat('y', 900)), (true, NULL)) AS t(h, d) \g /dev/null
SELECT results_eq(
    format('SELECT is_healthy, length(details) FROM backend.runtime_health_snapshots WHERE game_id = %L ORDER BY snapshot_id', :'game'),
    'VALUES (true, NULL::integer), (false, 1), (false, 500), (true, NULL)', 'how an engine answers is stored where it changes');

SELECT backend.runtime_health_note(:'game', false, d) FROM unnest(ARRAY[E'it has ended:\n12:01 why', E'it has ended:\n12:02 why']) AS d \g /dev/null
SELECT is((SELECT count(*) FROM backend.runtime_health_snapshots WHERE game_id = :'game'), 5::bigint, 'not where only what it wrote does');

-- Turns and how races fare.
CREATE FUNCTION pg_temp.fares(p_game_id uuid) RETURNS TABLE (race text, planets integer, population numeric, initial_planets integer, initial_population numeric,
                                                             max_planets integer, max_population numeric)
LANGUAGE sql
BEGIN ATOMIC
    SELECT m.race_name, m.planets, m.population, m.initial_planets, m.initial_population, m.max_planets, m.max_population
      FROM backend.memberships AS m WHERE m.game_id = p_game_id;
END;
SELECT backend.runtime_snapshot(:'game', 0, '[{"id": "a", "raceName": "Alphas", "planets": 1, "population": 100.5}, {"id": "b", "raceName": "Betas", "planets": 2, "population": 7}]', 1) \g /dev/null
SELECT set_eq(
    format('SELECT * FROM pg_temp.fares(%L)', :'game'),
    $$VALUES ('Alphas', 1, 100.5, 1, 100.5, 1, 100.5), ('Betas', 2, 7, 2, 7, 2, 7)$$, 'the first turn is how everybody begins');
SELECT backend.runtime_snapshot(:'game', 1, '[{"raceName": "Alphas", "planets": 5, "population": 50}, {"raceName": "Strangers", "planets": 9, "population": 9}]', 2) \g /dev/null
SELECT set_eq(
    format('SELECT * FROM pg_temp.fares(%L)', :'game'),
    $$VALUES ('Alphas', 5, 50, 1, 100.5, 5, 100.5), ('Betas', 2, 7, 2, 7, 2, 7)$$, 'then how they fare now, and fared best');
SELECT backend.runtime_snapshot(:'game', 2, '[{"raceName": "Alphas", "planets": 3, "population": 200}]', 3) \g /dev/null
SELECT set_eq(
    format('SELECT * FROM pg_temp.fares(%L)', :'game'),
    $$VALUES ('Alphas', 3, 200, 1, 100.5, 5, 200), ('Betas', 2, 7, 2, 7, 2, 7)$$, 'each by itself');
SELECT backend.runtime_snapshot(:'game', 2, '[]', 4) \g /dev/null
SELECT results_eq(
    format('SELECT turn, lease_number, jsonb_array_length(players) FROM backend.game_turns WHERE game_id = %L ORDER BY turn', :'game'),
    'VALUES (0, 1::bigint, 2), (1, 2, 2), (2, 3, 1)', 'a turn is stored once, as it came first');

-- What an engine looks like.
SELECT is(
    backend.runtime_json(pg_temp.runtime(:'game')),
    jsonb_build_object('game_id', :'game', 'wanted', 'running', 'status', 'starting', 'generation', 1, 'engine_version', '1.2.0', 'image_ref', 'galaxy/engine:1.2.0',
                       'container_id', NULL, 'endpoint', NULL, 'current_turn', NULL, 'next_turn_at', NULL, 'skip_next_turn', false, 'started_at', NULL,
                       'last_observed_at', NULL), 'an engine is shown as the contract says');

-- Somebody leaves before the start, and another plays under the name.
SELECT pg_temp.person('cid') AS cid, pg_temp.person('dan') AS dan \gset
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas"}') AS left_game \gset
SELECT pg_temp.join(:'left_game', :'cid', 'Deltas') \g /dev/null
UPDATE backend.memberships SET status = 'removed', ended_at = backend.now() WHERE game_id = :'left_game' AND user_id = :'cid';
SELECT backend.race_name_release_unused(:'cid', backend.race_name_canonical('Deltas')) \g /dev/null
SELECT pg_temp.join(:'left_game', :'dan', 'Deltas') \g /dev/null
SELECT pg_temp.bring(:'left_game', 'starting') \g /dev/null
SELECT backend.runtime_snapshot(:'left_game', 0, '[{"raceName": "Deltas", "planets": 3, "population": 9}]', 1) \g /dev/null
SELECT set_eq(
    format($$SELECT user_id, planets FROM backend.memberships WHERE game_id = %L AND race_name = 'Deltas'$$, :'left_game'),
    format('VALUES (%L::uuid, NULL), (%L, 3)', :'cid', :'dan'), 'who had left is not shown how somebody else fares');

SELECT * FROM finish();
ROLLBACK;
