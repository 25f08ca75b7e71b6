-- Test galaxy-backend:backend/runtime

BEGIN;
SELECT plan(61);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes.
CREATE TEMPORARY TABLE tables (t text);
INSERT INTO tables VALUES ('runtime_records'), ('player_mappings'), ('game_turns'), ('runtime_operation_log'), ('runtime_health_snapshots'), ('runtime_logs');
SELECT has_table('backend', t, format('there is %s', t)) FROM tables;
SELECT fk_ok('backend', t, 'game_id', 'backend', 'games', 'game_id', format('%s is of a game', t)) FROM tables;
SELECT fk_ok('backend', 'player_mappings', 'user_id', 'backend', 'accounts', 'user_id', 'a player is a person');
SELECT fk_ok('backend', 'runtime_records', 'engine_version', 'backend', 'engine_versions', 'version', 'an engine has a version');
SELECT col_is_pk('backend', 'runtime_records', 'game_id', 'a game has one engine');
SELECT col_is_pk('backend', 'player_mappings', ARRAY['game_id', 'user_id'], 'a person is one player of a game');
SELECT col_is_pk('backend', 'game_turns', ARRAY['game_id', 'turn'], 'a turn is stored once');
SELECT col_is_pk('backend', 'runtime_operation_log', 'operation_id', 'an operation has an id');
SELECT col_is_pk('backend', 'runtime_health_snapshots', 'snapshot_id', 'a snapshot of health has an id');
SELECT col_not_null('backend', 'runtime_records', c, format('%s is always told', c))
  FROM unnest(ARRAY['wanted', 'status', 'generation', 'engine_version', 'image_ref', 'skip_next_turn', 'lease_number', 'next_attempt_at']) AS c;
SELECT col_default_is('backend', 'runtime_records', 'generation', '1', 'the first engine is of the first generation');
SELECT col_default_is('backend', 'runtime_records', 'lease_number', '0', 'and nobody has worked on it');

-- Privileges.
SET LOCAL ROLE backend_worker;
SELECT throws_ok(format('SELECT FROM backend.%I', t), '42501', NULL, format('backend_worker sees %s through its door only', t))
  FROM unnest(ARRAY['runtime_records', 'player_mappings', 'game_turns', 'runtime_operation_log', 'runtime_health_snapshots', 'runtime_logs']) AS t;
SELECT throws_ok('UPDATE backend.runtime_records SET lease_number = 0', '42501', NULL, 'and lowers no fence');
RESET ROLE;

-- The machine: an engine is started from wherever it does not run, answers, computes, and goes.
SELECT set_eq(
    $$SELECT action, from_state, to_state FROM backend.state_transitions WHERE machine = 'runtime'$$,
    $$SELECT 'start' AS action, f AS from_state, 'starting' AS to_state FROM unnest(ARRAY[NULL, 'stopped', 'removed', 'running', 'engine_unreachable', 'generation_failed', 'generating']) AS f
      UNION ALL SELECT 'observe', f, 'running' FROM unnest(ARRAY['starting', 'engine_unreachable', 'generation_failed', 'stopped']) AS f
      UNION ALL SELECT 'generate', f, 'generating' FROM unnest(ARRAY['running', 'engine_unreachable', 'generation_failed']) AS f
      UNION ALL SELECT 'report', 'generating', t FROM unnest(ARRAY['running', 'engine_unreachable', 'generation_failed']) AS t
      UNION ALL SELECT 'report', 'starting', 'engine_unreachable'
      UNION ALL SELECT 'report', 'running', t FROM unnest(ARRAY['engine_unreachable', 'generation_failed']) AS t
      UNION ALL SELECT 'stop', f, 'stopped' FROM unnest(ARRAY['starting', 'running', 'generating', 'engine_unreachable', 'generation_failed']) AS f
      UNION ALL SELECT 'remove', f, 'removed' FROM unnest(ARRAY['starting', 'running', 'generating', 'engine_unreachable', 'generation_failed', 'stopped']) AS f$$,
    'an engine has these edges');

-- Constraints.
SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob') AS bob \gset
SELECT pg_temp.game(:'ann') AS game \gset
SELECT is(
    pg_temp.violated(format('INSERT INTO backend.%s', replace(replace(replace(v, ':game', quote_literal(:'game')), ':ann', quote_literal(:'ann')), ':bob', quote_literal(:'bob')))), c, d)
  FROM (VALUES
    ($$runtime_records (game_id, engine_version, image_ref) VALUES (:game, '1.2.0', 'e')$$, 'nothing', 'a game has an engine'),
    ($$runtime_records (game_id, engine_version, image_ref) VALUES (:game, '1.2.0', 'e')$$, 'runtime_records_pkey', 'and no other'),
    ($$runtime_records (game_id, engine_version, image_ref) VALUES (gen_random_uuid(), '1.2.0', 'e')$$, 'runtime_records_game_id_fkey', 'an engine is of a game'),
    ($$player_mappings (game_id, user_id, player_id, race_name) VALUES (:game, :ann, 'p', 'Zorg')$$, 'nothing', 'a player has a race'),
    ($$player_mappings (game_id, user_id, player_id, race_name) VALUES (:game, :ann, 'p', 'Borg')$$, 'player_mappings_pkey', 'and no other'),
    ($$player_mappings (game_id, user_id, player_id, race_name) VALUES (:game, :bob, 'p', 'Zorg')$$, 'player_mappings_one_per_race', 'a race has one player'),
    ($$game_turns (game_id, turn, players, lease_number) VALUES (:game, 1, '[]', 1), (:game, 1, '[]', 2)$$, 'game_turns_pkey', 'a turn counts once'),
    ($$runtime_operation_log (game_id, operation, generation, lease_number) VALUES (:game, 'turn', 1, 1)$$, 'nothing', 'an operation goes on'),
    ($$runtime_operation_log (game_id, operation, generation, lease_number) VALUES (:game, 'dance', 1, 1)$$,
        'runtime_operation_log_operation_is_known', 'an operation is known'),
    ($$runtime_operation_log (game_id, operation, generation, lease_number, outcome) VALUES (:game, 'turn', 1, 1, 'done')$$, 'nothing', 'it is done'),
    ($$runtime_operation_log (game_id, operation, generation, lease_number, outcome) VALUES (:game, 'turn', 1, 1, 'perhaps')$$,
        'runtime_operation_log_outcome_is_known', 'or failed, but not anything else'),
    ($$runtime_health_snapshots (game_id, is_healthy) VALUES (:game, true)$$, 'nothing', 'an engine is well'),
    ($$runtime_logs (game_id, content) VALUES (:game, repeat('x', 262145))$$, 'runtime_logs_content_is_short', 'a log has an end')
  ) AS t(v, c, d);
SELECT is(
    pg_temp.violated(format('UPDATE backend.runtime_records SET wanted = %L WHERE game_id = %L', w, :'game')),
    CASE w WHEN 'asleep' THEN 'runtime_records_wanted_is_known' ELSE 'nothing' END, format('an engine is %s wanted %s', CASE w WHEN 'asleep' THEN 'not' ELSE 'perhaps' END, w))
  FROM unnest(ARRAY['running', 'stopped', 'removed', 'asleep']) AS w;
SELECT is(
    pg_temp.violated(format('UPDATE backend.runtime_records SET start_operation = ''dance'' WHERE game_id = %L', :'game')), 'runtime_records_start_operation_is_known',
    'why one is started is known');
UPDATE backend.runtime_records SET wanted = 'running';
UPDATE backend.settings SET default_value = 2 WHERE setting_name = 'runtime_job_queue_size';
SELECT is(backend.runtime_queue_is_full(), false, 'one that waits to be started is not too many');
INSERT INTO backend.runtime_logs (game_id) VALUES (:'game');
SELECT is(backend.runtime_queue_is_full(), true, 'a log that waits counts too');
UPDATE backend.runtime_logs SET taken_at = requested_at;
SELECT is(backend.runtime_queue_is_full(), false, 'one that was fetched does not');
UPDATE backend.runtime_records SET turn_requested_at = backend.now(), skip_next_turn = true;
SELECT is(backend.runtime_queue_is_full(), true, 'a turn by force does');
UPDATE backend.runtime_records SET skip_next_turn = false;
SELECT is(backend.runtime_queue_is_full(), false, 'one that is due does not');
SELECT throws_ok(
    $$UPDATE backend.runtime_records SET status = 'generating'$$, 'GX409', 'invalid_transition', 'an engine that has not come up computes nothing');

SELECT * FROM finish();
ROLLBACK;
