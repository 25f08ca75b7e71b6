-- Test galaxy-backend:api/runtimes

BEGIN;
SELECT plan(103);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], volatility text);
INSERT INTO functions VALUES
    ('runtime_list', ARRAY['text', 'integer', 'text'], 'stable'), ('runtime_get', ARRAY['text', 'uuid'], 'stable'),
    ('runtime_force_next_turn', ARRAY['text', 'uuid'], 'volatile'), ('runtime_restart', ARRAY['text', 'uuid'], 'volatile'),
    ('runtime_patch', ARRAY['text', 'uuid', 'jsonb'], 'volatile'), ('runtime_logs_take', ARRAY['text', 'uuid'], 'volatile'), ('runtime_logs_get', ARRAY['text', 'uuid'], 'stable');
SELECT function_returns('api', name, arguments, 'text', format('%s() has one answer', name)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT pg_temp.person('ann', 'monthly') AS ann, pg_temp.person('bob') AS bob, gen_random_uuid() AS nowhere \gset
CREATE FUNCTION pg_temp.ready(p_owner uuid, p_other uuid) RETURNS uuid
LANGUAGE plpgsql
AS $$
DECLARE
    v_game_id uuid := pg_temp.game(p_owner, '{"race_name": "Alphas"}');
BEGIN
    PERFORM pg_temp.join(v_game_id, p_other, 'Betas'), pg_temp.bring(v_game_id, 'starting');
    RETURN v_game_id;
END;
$$;
SELECT pg_temp.ready(:'ann', :'bob') AS one, pg_temp.ready(:'ann', :'bob') AS two, pg_temp.game(:'ann') AS draft \gset

-- The list, and one.
CREATE FUNCTION pg_temp.ids(p_page text) RETURNS uuid[]
LANGUAGE sql
RETURN (SELECT coalesce(array_agg((i ->> 'game_id')::uuid ORDER BY n), '{}') FROM jsonb_array_elements(p_page::jsonb -> 'items') WITH ORDINALITY AS t(i, n));
SELECT is(pg_temp.ids(api.runtime_list('root', 50, NULL)), ARRAY[:'two', :'one']::uuid[], 'engines are listed, the newest game''s first');
SELECT api.runtime_list('root', 1, NULL) AS page1 \gset
SELECT api.runtime_list('root', 1, :'page1'::jsonb ->> 'next_cursor') AS page2 \gset
SELECT is(pg_temp.ids(:'page1') || pg_temp.ids(:'page2'), ARRAY[:'two', :'one']::uuid[], 'in pages');
SELECT is(:'page2'::jsonb -> 'next_cursor', 'null', 'of which the last says that it is');
SELECT throws_ok($$SELECT api.runtime_list('root', 1, 'x')$$, 'GX400', 'invalid_cursor', 'a cursor is one of this list');
SELECT throws_ok(format($$SELECT api.runtime_get('root', %L)$$, g), 'GX404', 'runtime_not_found', d)
  FROM (VALUES (:'draft', 'a draft has no engine'), (:'nowhere', 'nor has what is not there')) AS t(g, d);
SELECT is(
    api.runtime_get('root', :'one')::jsonb - ARRAY['operations', 'health'], (SELECT i FROM jsonb_array_elements(api.runtime_list('root', 50, NULL)::jsonb -> 'items') AS i WHERE i ->> 'game_id' = :'one'),
    'one is shown as in the list');
SELECT is(api.runtime_get('root', :'one')::jsonb -> 'operations', '[]', 'nothing was done to it yet');
SELECT is(api.runtime_get('root', :'one')::jsonb -> 'health', 'null', 'nor seen of it');
SELECT pg_temp.started(:'one') \g /dev/null
INSERT INTO backend.runtime_health_snapshots (game_id, is_healthy, details) VALUES (:'one', true, NULL);
INSERT INTO backend.runtime_health_snapshots (game_id, is_healthy, details) VALUES (:'one', false, 'no answer');
SELECT is(
    api.runtime_get('root', :'one')::jsonb -> 'operations',
    jsonb_build_array(jsonb_build_object('operation', 'start', 'generation', 1, 'started_at', backend.ts(backend.now()), 'finished_at', backend.ts(backend.now()),
                                         'outcome', 'done', 'error', NULL)), 'what was done to it is shown');
SELECT is(
    api.runtime_get('root', :'one')::jsonb -> 'health', jsonb_build_object('is_healthy', false, 'details', 'no answer', 'at', backend.ts(backend.now())), 'and how it answered last');
INSERT INTO backend.runtime_operation_log (game_id, operation, generation, lease_number) SELECT :'one', 'turn', 1, i FROM generate_series(1, 60) AS i;
SELECT is(jsonb_array_length(api.runtime_get('root', :'one')::jsonb -> 'operations'), 50, 'of much only the newest');

-- A turn by force.
SELECT throws_ok(format($$SELECT api.runtime_force_next_turn('root', %L)$$, :'nowhere'), 'GX404', 'game_not_found', 'a game that is not there has no turn');
SELECT is(
    pg_temp.refused(format($$SELECT api.runtime_force_next_turn('root', %L)$$, :'two')) ->> 'hint', '{"status": "starting"}', 'nor one that does not run');
SELECT throws_ok(format($$SELECT api.runtime_force_next_turn('root', %L)$$, g), 'GX409', 'game_not_running', format('a game that is %s has none', pg_temp.state(g::uuid)))
  FROM unnest(ARRAY[:'two', :'draft']) AS g;
SELECT is((SELECT count(*) FROM backend.audit_log), 0::bigint, 'a refusal is not written down');
SET LOCAL ROLE backend_api;
RESET ROLE;
UPDATE backend.runtime_records SET turn_requested_at = backend.now() WHERE game_id = :'one';
SELECT throws_ok(format($$SELECT api.runtime_force_next_turn('root', %L)$$, :'one'), 'GX409', 'turn_in_progress', 'while one of the schedule is computed, none is forced');
UPDATE backend.runtime_records SET turn_requested_at = NULL WHERE game_id = :'one';
SET LOCAL ROLE backend_api;
SELECT is(api.runtime_force_next_turn('root', :'one')::jsonb ->> 'game_id', :'one', 'a turn is asked for');
SELECT is(api.runtime_get('root', :'one')::jsonb ->> 'skip_next_turn', 'true', 'and the next one of the schedule will not come');
SELECT is(api.runtime_force_next_turn('root', :'one')::jsonb ->> 'status', 'running', 'asked again before it ran');
RESET ROLE;
SELECT results_eq(
    format('SELECT turn_requested_at, next_attempt_at FROM pg_temp.runtime(%L)', :'one'),
    $$VALUES (backend.now(), backend.now() + interval '30 seconds')$$, 'the turn is to be had now');
SELECT results_eq(
    $$SELECT queue_name::text, lock, args ->> 'game_id' FROM procrastinate.procrastinate_jobs WHERE task_name = 'turn_run'$$,
    format($$VALUES ('runtime', 'game:%1$s', '%1$s')$$, :'one'), 'it is one turn');
SELECT results_eq(
    'SELECT admin, action, object_type, object_id FROM backend.audit_log',
    format($$SELECT 'root', 'runtime_force_next_turn', 'game', %L FROM generate_series(1, 2)$$, :'one'), 'each asking is written down');
SELECT api.game_pause(:'ann', :'one') \g /dev/null
SELECT throws_ok(format($$SELECT api.runtime_force_next_turn('root', %L)$$, :'one'), 'GX409', 'game_not_running', 'a paused game has no turn by force');

-- Those who may not.
CREATE TEMPORARY TABLE calls (name text, call text);
INSERT INTO calls VALUES
    ('runtime_list', 'SELECT api.runtime_list(%L, 50, NULL)'), ('runtime_get', format('SELECT api.runtime_get(%%L, %L)', :'one')),
    ('runtime_force_next_turn', format('SELECT api.runtime_force_next_turn(%%L, %L)', :'one'));
SELECT throws_ok(format(call, a), 'GX401', 'unauthorized', format('%s is not for %s', name, coalesce(a, 'nobody'))) FROM calls, unnest(ARRAY['mallory', NULL]) AS a;
UPDATE backend.admin_accounts SET disabled_at = backend.now();
SELECT throws_ok(format(call, 'root'), 'GX401', 'unauthorized', format('%s is not for an administrator who is disabled', name)) FROM calls;

-- Another engine over the same state.
INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('boss', '$2b$12$' || repeat('x', 53));
SELECT (backend.game_transition(g, 'resume', 'user', :'ann')).status FROM backend.game_lock(:'one') AS g WHERE g.status = 'paused' \g /dev/null
UPDATE backend.runtime_records SET status = 'running', turn_requested_at = NULL, skip_next_turn = false, lease_until = NULL WHERE game_id = :'one';
UPDATE backend.settings SET default_value = 1000 WHERE setting_name = 'runtime_job_queue_size';
SELECT throws_ok(format($$SELECT api.runtime_restart('boss', %L)$$, :'nowhere'), 'GX404', 'game_not_found', 'a game that is not there has no engine to restart');
SELECT throws_ok(format($$SELECT api.runtime_restart('boss', %L)$$, g), 'GX409', 'game_not_running', format('nor one that is %s', pg_temp.state(g::uuid))) FROM unnest(ARRAY[:'two', :'draft']) AS g;
SET LOCAL ROLE backend_api;
SELECT is(api.runtime_restart('boss', :'one')::jsonb ->> 'game_id', :'one', 'an engine is started anew');
RESET ROLE;
SELECT results_eq(
    format('SELECT status, generation, start_operation, engine_version FROM backend.runtime_records WHERE game_id = %L', :'one'),
    $$VALUES ('starting', 2, 'restart', '1.2.0')$$, 'as another generation');
SELECT is(pg_temp.state(:'one'), 'running', 'of a game that goes on');
SELECT throws_ok(format($$SELECT api.runtime_restart('boss', %L)$$, :'one'), 'GX409', 'invalid_transition', 'one that is being started is not started again');
SELECT is((SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE task_name = 'runtime_start' AND args ->> 'game_id' = :'one'), 2::bigint, 'a job does it');
SELECT worker.runtime_started(:'one', c.lease_number, 'c2', 'http://e2:8080', 0, '[]') FROM worker.runtime_start_claim(:'one', 60) AS c \g /dev/null
INSERT INTO backend.engine_versions (version, image_ref, enabled) VALUES ('1.2.1', 'galaxy/engine:1.2.1', true), ('1.2.2', 'e', false), ('1.3.0', 'e', true);
SELECT throws_ok(format($$SELECT api.runtime_patch('boss', %L, '{"version": "%s"}')$$, :'one', v), 'GX422', 'engine_version_unavailable', d)
  FROM (VALUES ('1.2.9', 'a version that is not there'), ('1.2.2', 'or not enabled is none')) AS t(v, d);
SELECT throws_ok(format($$SELECT api.runtime_patch('boss', %L, '{"version": "1.3.0"}')$$, :'one'), 'GX422', 'engine_version_incompatible', 'a game that runs stays with major and minor');
SELECT is(api.runtime_patch('boss', :'one', '{"version": "1.2.1"}')::jsonb ->> 'target_engine_version', '1.2.1', 'a patch is another version');
SELECT results_eq(
    format('SELECT status, generation, start_operation, engine_version, image_ref FROM backend.runtime_records WHERE game_id = %L', :'one'),
    $$VALUES ('starting', 3, 'patch', '1.2.1', 'galaxy/engine:1.2.1')$$, 'and its image');
SELECT throws_ok(format($$SELECT api.runtime_patch('boss', %L, '{"version": "1.2.1"}')$$, :'one'), 'GX409', 'invalid_transition', 'one at a time');
SELECT worker.runtime_started(:'one', c.lease_number, 'c3', 'http://e3:8080', 0, '[]') FROM worker.runtime_start_claim(:'one', 60) AS c \g /dev/null

-- Logs are asked for, and fetched by a job.
SELECT throws_ok(format($$SELECT api.runtime_logs_take('boss', %L)$$, :'draft'), 'GX404', 'runtime_not_found', 'a game without an engine has no log');
SELECT throws_ok(format($$SELECT api.runtime_logs_get('boss', %L)$$, :'one'), 'GX404', 'runtime_logs_not_found', 'one that nobody asked for is not there');
SELECT is(api.runtime_logs_take('boss', :'one')::jsonb -> 'taken_at', 'null', 'a log is asked for');
SELECT is(api.runtime_logs_take('boss', :'one')::jsonb -> 'content', 'null', 'again before it has come');
SELECT is((SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE task_name = 'runtime_logs'), 1::bigint, 'is one request');
SELECT worker.runtime_logs_store(:'one', 'it runs', NULL) \g /dev/null
SELECT is(api.runtime_logs_get('boss', :'one')::jsonb ->> 'content', 'it runs', 'then it is there');

-- No more than so many commands wait.
UPDATE backend.settings SET default_value = (SELECT count(*) FROM backend.runtime_records WHERE status = 'starting'), min_value = 0 WHERE setting_name = 'runtime_job_queue_size';
SELECT throws_ok(format(c, :'one'), 'GX503', 'runtime_busy', d)
  FROM (VALUES ($$SELECT api.runtime_restart('boss', %L)$$, 'no restart where too many wait'), ($$SELECT api.runtime_patch('boss', %L, '{"version": "1.2.1"}')$$, 'no patch'),
               ($$SELECT api.runtime_logs_take('boss', %L)$$, 'no log'), ($$SELECT api.runtime_force_next_turn('boss', %L)$$, 'no turn by force')) AS t(c, d);
UPDATE backend.settings SET default_value = default_value + 1 WHERE setting_name = 'runtime_job_queue_size';
SELECT lives_ok(format($$SELECT api.runtime_logs_take('boss', %L)$$, :'one'), 'one more may');
SELECT throws_ok(format($$SELECT api.runtime_restart('boss', %L)$$, :'one'), 'GX503', 'runtime_busy', 'and no other');
SELECT set_has(
    'SELECT action FROM backend.audit_log', $$VALUES ('runtime_restart'), ('runtime_patch'), ('runtime_logs_take')$$, 'what was done is written down');

SELECT * FROM finish();
ROLLBACK;
