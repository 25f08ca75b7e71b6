-- Test galaxy-backend:worker/runtime

BEGIN;
SELECT plan(396);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], returns text, volatility text);
INSERT INTO functions VALUES
    ('runtime_start_claim', ARRAY['uuid', 'integer'], 'setof record', 'volatile'),
    ('runtime_started', ARRAY['uuid', 'bigint', 'text', 'text', 'integer', 'jsonb'], 'boolean', 'volatile'),
    ('runtime_start_failed', ARRAY['uuid', 'bigint', 'text', 'text'], 'boolean', 'volatile'),
    ('turns_defer', ARRAY['integer'], 'integer', 'volatile'), ('turn_claim', ARRAY['uuid', 'integer'], 'setof record', 'volatile'),
    ('turn_report', ARRAY['uuid', 'bigint', 'integer', 'boolean', 'jsonb'], 'text', 'volatile'), ('turn_failed', ARRAY['uuid', 'bigint', 'text', 'text', 'boolean', 'boolean'], 'text', 'volatile'),
    ('runtimes_unsettled_defer', ARRAY['integer'], 'integer', 'volatile'), ('runtime_remove_claim', ARRAY['uuid', 'integer'], 'setof bigint', 'volatile'),
    ('runtime_removed', ARRAY['uuid', 'bigint'], 'boolean', 'volatile'), ('runtimes_list', ARRAY['uuid'], 'setof record', 'stable'), ('runtime_is_wanted', ARRAY['uuid', 'integer'], 'boolean', 'stable'),
    ('runtime_moved', ARRAY['uuid', 'bigint', 'text', 'text'], 'boolean', 'volatile'), ('runtime_observed', ARRAY['uuid', 'integer', 'text', 'text'], 'boolean', 'volatile'),
    ('runtime_unwell', ARRAY['uuid', 'integer', 'text', 'text', 'double precision'], 'text', 'volatile'),
    ('runtime_was_started', ARRAY['uuid', 'integer'], 'boolean', 'volatile'), ('runtime_lease_renew', ARRAY['uuid', 'bigint', 'integer'], 'boolean', 'volatile'),
    ('runtime_logs_defer', ARRAY['integer'], 'integer', 'volatile'), ('runtime_logs_store', ARRAY['uuid', 'text', 'text'], 'boolean', 'volatile'),
    ('finished_engines_unwant', ARRAY['integer'], 'integer', 'volatile'),
    ('runtime_health_purge', ARRAY['integer'], 'integer', 'volatile'), ('runtime_operations_purge', ARRAY['integer'], 'integer', 'volatile');
SELECT function_returns('worker', name, arguments, returns, format('%s() answers %s', name, returns)) FROM functions;
SELECT volatility_is('worker', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('worker', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('worker', name, arguments, 'backend_worker', ARRAY['EXECUTE'], format('backend_worker may execute %s()', name)) FROM functions;
SELECT function_privs_are('worker', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_api', 'backend_push']) AS r;

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, gen_random_uuid() AS nowhere \gset
SELECT pg_temp.set_limit(u::uuid, l, 50) FROM unnest(ARRAY[:'ann', :'bob']) AS u, unnest(ARRAY['max_owned_private_games', 'max_active_memberships']) AS l \g /dev/null
-- Not far into an hour, so that what is said of hours holds whenever this runs.
UPDATE backend.clock SET clock_offset = date_trunc('hour', transaction_timestamp()) + interval '10 minutes' - transaction_timestamp();

CREATE FUNCTION pg_temp.made(p_owner uuid, p_other uuid, p_state text) RETURNS uuid
LANGUAGE plpgsql
AS $$
DECLARE
    v_game_id uuid := pg_temp.game(p_owner, '{"race_name": "Alphas"}');
BEGIN
    PERFORM pg_temp.join(v_game_id, p_other, 'Betas'), pg_temp.bring(v_game_id, p_state);
    RETURN v_game_id;
END;
$$;
-- As the program calls them.
CREATE FUNCTION pg_temp.start_claim(p_game_id uuid, p_seconds integer DEFAULT 60) RETURNS bigint
LANGUAGE plpgsql SET role = backend_worker
AS $$
BEGIN
    RETURN (SELECT c.lease_number FROM worker.runtime_start_claim(p_game_id, p_seconds) AS c);
END;
$$;
CREATE FUNCTION pg_temp.turn_claim(p_game_id uuid, p_seconds integer DEFAULT 60) RETURNS bigint
LANGUAGE plpgsql SET role = backend_worker
AS $$
BEGIN
    RETURN (SELECT c.lease_number FROM worker.turn_claim(p_game_id, p_seconds) AS c);
END;
$$;
CREATE FUNCTION pg_temp.remove_claim(p_game_id uuid, p_seconds integer DEFAULT 60) RETURNS bigint
LANGUAGE plpgsql SET role = backend_worker
AS $$
BEGIN
    RETURN (SELECT c.lease_number FROM worker.runtime_remove_claim(p_game_id, p_seconds) AS c);
END;
$$;
-- All that there is of a game, to see that it did not change.
CREATE FUNCTION pg_temp.everything(p_game_id uuid) RETURNS text
LANGUAGE sql
RETURN (SELECT md5(concat(
    (SELECT g FROM backend.games AS g WHERE g.game_id = p_game_id), (SELECT r FROM backend.runtime_records AS r WHERE r.game_id = p_game_id),
    (SELECT array_agg(m ORDER BY m.membership_id) FROM backend.memberships AS m WHERE m.game_id = p_game_id),
    (SELECT array_agg(t ORDER BY t.turn) FROM backend.game_turns AS t WHERE t.game_id = p_game_id),
    (SELECT array_agg(o ORDER BY o.operation_id) FROM backend.runtime_operation_log AS o WHERE o.game_id = p_game_id),
    (SELECT array_agg(p ORDER BY p.user_id) FROM backend.player_mappings AS p WHERE p.game_id = p_game_id),
    (SELECT count(*) FROM backend.game_history AS h WHERE h.game_id = p_game_id), (SELECT count(*) FROM backend.notifications))));
CREATE FUNCTION pg_temp.jobs(p_game_id uuid, p_task text) RETURNS bigint
LANGUAGE sql
RETURN (SELECT count(*) FROM procrastinate.procrastinate_jobs AS j
         WHERE j.task_name = p_task AND j.args ->> 'game_id' = p_game_id::text AND j.lock = 'game:' || p_game_id AND j.queue_name = 'runtime');

-- A start is claimed once.
SELECT is(pg_temp.start_claim(:'nowhere'), NULL, 'a game that is not there is not started');
SELECT pg_temp.made(:'ann', :'bob', 'ready_to_start') AS game \gset
SELECT is(pg_temp.start_claim(:'game'), NULL, 'nor one of which nobody wants it');
SELECT api.game_start(:'ann', :'game') \g /dev/null
SET LOCAL ROLE backend_worker;
SELECT results_eq(
    format('SELECT * FROM worker.runtime_start_claim(%L, 60)', :'game'),
    $$VALUES (1::bigint, 1, '1.2.0', 'galaxy/engine:1.2.0', ARRAY['Alphas', 'Betas'], 'start')$$, 'a worker claims it, and gets what it is started with');
RESET ROLE;
SELECT is(pg_temp.start_claim(:'game'), NULL, 'no other does');
SELECT pg_temp.advance('60 seconds - 1 microsecond') \g /dev/null
SELECT is(pg_temp.start_claim(:'game'), NULL, 'while the lease lasts, to the microsecond');
SELECT pg_temp.advance('1 microsecond') \g /dev/null
SELECT is(pg_temp.start_claim(:'game'), 2::bigint, 'then somebody else does, under a higher number');
SELECT results_eq(
    format('SELECT operation, lease_number, outcome FROM backend.runtime_operation_log WHERE game_id = %L ORDER BY operation_id', :'game'),
    $$VALUES ('start', 1::bigint, 'failed'), ('start', 2, NULL)$$, 'each attempt is written down before anything is done; of the one before nobody has told');

-- The fence: what the old worker says changes nothing.
SELECT pg_temp.everything(:'game') AS before \gset
SELECT is(worker.runtime_started(:'game', n, 'old', 'http://old', 0, pg_temp.players(:'game')), false, format('that it runs counts for nothing under %s', n)) FROM unnest(ARRAY[1, 0, 3, NULL]) AS n;
SELECT is(worker.runtime_start_failed(:'game', n, 'image_pull_failed', 'x'), false, format('nor that it does not under %s', n)) FROM unnest(ARRAY[1, 0, 3, NULL]) AS n;
SELECT is(worker.turn_report(:'game', 1, 1, true, pg_temp.players(:'game')), 'superseded', 'nor that a turn was computed');
SELECT is(worker.turn_failed(:'game', 1, 'generation_failed', 'x', false), 'superseded', 'nor that it was not');
SELECT is(worker.runtime_removed(:'game', 1), false, 'nor that it is gone');
SELECT is(pg_temp.everything(:'game'), :'before', 'nothing has changed');
SELECT is(worker.turn_report(:'game', 2, 1, true, pg_temp.players(:'game')), 'superseded', 'a lease to start reports no turn');
SELECT is(worker.runtime_removed(:'game', 2), false, 'and removes nothing that is wanted');
SELECT is(pg_temp.everything(:'game'), :'before', 'still nothing has changed');

-- It runs.
DELETE FROM backend.push_pending;
SET LOCAL ROLE backend_worker;
SELECT is(
    worker.runtime_started(:'game', 2, 'c1', 'http://e1:8080', 0,
        '[{"id": "p1", "raceName": "Alphas", "planets": 1, "population": 10}, {"id": "p2", "raceName": "Betas", "planets": 1, "population": 20}]'), true, 'who holds the lease says that it runs');
RESET ROLE;
SELECT results_eq(
    format('SELECT wanted, status, container_id, endpoint, current_turn, next_turn_at, lease_number, lease_until, started_at, last_observed_at FROM pg_temp.runtime(%L)', :'game'),
    $$VALUES ('running', 'running', 'c1', 'http://e1:8080', 0, date_trunc('hour', backend.now()) + interval '1 hour', 2::bigint, NULL::timestamptz, backend.now(), backend.now())$$,
    'the engine runs; its next turn is of the schedule');
SELECT is(pg_temp.state(:'game'), 'running', 'so does the game');
SELECT set_eq(
    format('SELECT user_id, player_id, race_name FROM backend.player_mappings WHERE game_id = %L', :'game'),
    format($$VALUES (%L::uuid, 'p1', 'Alphas'), (%L, 'p2', 'Betas')$$, :'ann', :'bob'), 'who is which player is known');
SELECT set_eq(
    format('SELECT race_name, planets, population, initial_planets, initial_population FROM backend.memberships WHERE game_id = %L', :'game'),
    $$VALUES ('Alphas', 1, 10::numeric, 1, 10::numeric), ('Betas', 1, 20, 1, 20)$$, 'and how each begins');
SELECT set_eq('SELECT user_id, kind FROM backend.push_pending', format($$VALUES (%L::uuid, 'game.started'), (%L, 'game.started')$$, :'ann', :'bob'), 'everybody is told');
SELECT is((SELECT outcome FROM backend.runtime_operation_log WHERE game_id = :'game' AND lease_number = 2), 'done', 'the attempt is done');
SELECT pg_temp.everything(:'game') AS before \gset
SELECT is(worker.runtime_started(:'game', 2, 'c2', 'http://e2', 5, '[]'), false, 'it is said once');
SELECT is(worker.runtime_start_failed(:'game', 2, 'image_pull_failed', 'x'), false, 'and not unsaid');
SELECT is(pg_temp.everything(:'game'), :'before', 'nothing has changed');
SELECT is(pg_temp.start_claim(:'game'), NULL, 'what runs is not started');

-- It cannot be started: each kind.
CREATE TEMPORARY TABLE failures AS
SELECT kind, pg_temp.made(:'ann', :'bob', 'starting') AS game_id FROM unnest(ARRAY['image_pull_failed', 'container_start_failed', 'start_config_invalid']) AS kind;
DELETE FROM backend.push_pending;
SELECT is(worker.runtime_start_failed(game_id, pg_temp.start_claim(game_id), kind, 'the reason'), true, format('a start fails: %s', kind)) FROM failures;
SELECT results_eq(
    'SELECT g.status, g.status_reason, r.status, r.wanted, r.lease_until FROM failures AS f JOIN backend.games AS g USING (game_id) JOIN backend.runtime_records AS r USING (game_id) ORDER BY f.kind',
    $$SELECT 'start_failed', k, 'stopped', 'stopped', NULL::timestamptz FROM unnest(ARRAY['container_start_failed', 'image_pull_failed', 'start_config_invalid']) AS k$$,
    'the game says why');
SELECT set_eq(
    'SELECT kind, user_id, payload, idempotency_key FROM backend.notifications WHERE kind LIKE ''runtime.%''',
    $$SELECT 'runtime.' || f.kind AS kind, NULL::uuid AS user_id, jsonb_build_object('game_id', f.game_id) || CASE f.kind
                 WHEN 'image_pull_failed' THEN '{"image_ref": "galaxy/engine:1.2.0"}' WHEN 'start_config_invalid' THEN '{"reason": "the reason"}' ELSE '{}' END::jsonb AS payload,
             f.game_id || ':1' AS key FROM failures AS f$$, 'administrators are told what they need');
SELECT is((SELECT count(*) FROM backend.push_pending), 0::bigint, 'members are not');
SELECT is_empty('SELECT * FROM backend.notification_malformed_intents', 'each in the form of its kind');
SELECT results_eq(
    'SELECT l.outcome, l.error FROM failures AS f JOIN backend.runtime_operation_log AS l USING (game_id) ORDER BY f.kind',
    $$SELECT 'failed', k || ': the reason' FROM unnest(ARRAY['container_start_failed', 'image_pull_failed', 'start_config_invalid']) AS k$$, 'and the attempt says what went wrong');
SELECT (SELECT game_id FROM failures WHERE kind = 'start_config_invalid') AS failed, (SELECT game_id FROM failures WHERE kind = 'image_pull_failed') AS retried \gset
SELECT api.game_retry_start(:'ann', :'retried') \g /dev/null
SELECT is(pg_temp.start_claim(:'retried'), 2::bigint, 'another try is another attempt');
SELECT is(worker.runtime_start_failed(:'retried', 1, 'image_pull_failed', 'x'), false, 'of which the one before knows nothing');
SELECT is(worker.runtime_start_failed(:'retried', 2, 'image_pull_failed', NULL), true, 'that fails too, with no reason told');
SELECT is((SELECT count(*) FROM backend.notifications WHERE kind = 'runtime.image_pull_failed'), 2::bigint, 'and is told again');
SELECT api.game_retry_start(:'ann', :'failed') \g /dev/null
SELECT is(worker.runtime_start_failed(:'failed', pg_temp.start_claim(:'failed'), 'start_config_invalid', ''), true, 'a configuration that is wrong for no reason');
SELECT is_empty('SELECT * FROM backend.notification_malformed_intents', 'is told to the administrators all the same');

-- Turns are due once.
SELECT is(worker.turns_defer(10), 0, 'no turn is due');
SELECT pg_temp.advance((pg_temp.runtime(:'game')).next_turn_at - backend.now() - interval '1 microsecond') \g /dev/null
SELECT is(worker.turns_defer(10), 0, 'not a microsecond before its time');
SELECT is(pg_temp.turn_claim(:'game'), NULL, 'nor is it claimed');
SELECT pg_temp.advance('1 microsecond') \g /dev/null
SELECT is(worker.turns_defer(0), 0, 'none is put into the queue where none is asked for');
SET LOCAL ROLE backend_worker;
SELECT is(worker.turns_defer(10), 1, 'at its time it is put into the queue');
SELECT is(worker.turns_defer(10), 0, 'once');
RESET ROLE;
SELECT is(pg_temp.jobs(:'game', 'turn_run'), 1::bigint, 'as a job, one for a game at a time');
SELECT pg_temp.advance('30 seconds') \g /dev/null
SELECT is(worker.turns_defer(10), 1, 'where the job was lost the sweep sends another');
SET LOCAL ROLE backend_worker;
SELECT results_eq(
    format('SELECT * FROM worker.turn_claim(%L, 60)', :'game'), $$VALUES (3::bigint, 0, 1, '1.2.0', 'galaxy/engine:1.2.0', 'http://e1:8080', false)$$, 'a worker claims it, and gets where the engine is');
RESET ROLE;
SELECT is((pg_temp.runtime(:'game')).status, 'generating', 'the turn is being computed');
SELECT is(pg_temp.turn_claim(:'game'), NULL, 'no other worker claims it');
SELECT pg_temp.advance('59 seconds') \g /dev/null
SELECT is(worker.turns_defer(10), 0, 'nor is it sent again while the lease lasts');
SELECT pg_temp.advance('1 second') \g /dev/null
SELECT is(worker.turns_defer(10), 1, 'a worker that died leaves it to another');
SELECT is(pg_temp.turn_claim(:'game'), 4::bigint, 'who takes it over');
SELECT pg_temp.everything(:'game') AS before \gset
SELECT is(worker.turn_report(:'game', 3, 1, true, pg_temp.players(:'game', 9, 900)), 'superseded', 'what the one before says counts for nothing');
SELECT is(worker.turn_failed(:'game', 3, 'engine_unreachable', 'x', false), 'superseded', 'good or bad');
SELECT is(pg_temp.everything(:'game'), :'before', 'nothing has changed');
DELETE FROM backend.push_pending;
SET LOCAL ROLE backend_worker;
SELECT is(worker.turn_report(:'game', 4, 1, false, '[{"raceName": "Alphas", "planets": 2, "population": 11}, {"raceName": "Betas", "planets": 1, "population": 5}]'), 'done', 'the turn was computed');
RESET ROLE;
SELECT results_eq(
    format('SELECT status, current_turn, turn_requested_at, lease_until, next_turn_at FROM pg_temp.runtime(%L)', :'game'),
    $$VALUES ('running', 1, NULL::timestamptz, NULL::timestamptz, date_trunc('hour', backend.now()) + interval '1 hour')$$, 'the next is of the schedule');
SELECT set_eq(
    'SELECT user_id, kind, payload, request_id FROM backend.push_pending',
    format($$SELECT u::uuid AS u, 'game.turn.ready' AS k, jsonb_build_object('game_id', %1$L::uuid, 'turn', 1) AS p, 'turn-ready:%1$s:1' AS r FROM unnest(ARRAY[%2$L, %3$L]) AS u$$, :'game', :'ann', :'bob'),
    'every member is told that it is there');
SELECT set_eq(
    format('SELECT race_name, planets, population, max_planets, max_population FROM backend.memberships WHERE game_id = %L', :'game'),
    $$VALUES ('Alphas', 2, 11::numeric, 2, 11::numeric), ('Betas', 1, 5, 1, 20)$$, 'and how each fares is known');
SELECT results_eq(
    format('SELECT turn, lease_number FROM backend.game_turns WHERE game_id = %L ORDER BY turn', :'game'), 'VALUES (0, 2::bigint), (1, 4)', 'the turn is stored, by whom it was reported');
SELECT is(worker.turn_report(:'game', 4, 2, false, pg_temp.players(:'game')), 'superseded', 'a lease reports once');
SELECT is(pg_temp.turn_claim(:'game'), NULL, 'and nothing is left to do');

-- An engine that does not go on, or has gone back: the game pauses, and nothing of it is stored.
CREATE FUNCTION pg_temp.go_on(p_game_id uuid) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    SELECT worker.runtime_observed(p_game_id, 1, 'c1', 'http://e1:8080');
    SELECT api.game_resume(g.owner_user_id, g.game_id) FROM backend.games AS g WHERE g.game_id = p_game_id;
END;
UPDATE backend.runtime_records SET turn_requested_at = backend.now() WHERE game_id = :'game';
SELECT is(worker.turn_report(:'game', pg_temp.turn_claim(:'game'), t, false, pg_temp.players(:'game', 99, 999)), 'paused', d)
  FROM (VALUES (1, 'a turn that was none pauses the game')) AS v(t, d);
SELECT pg_temp.go_on(:'game') \g /dev/null
UPDATE backend.runtime_records SET turn_requested_at = backend.now() WHERE game_id = :'game';
SELECT is(worker.turn_report(:'game', pg_temp.turn_claim(:'game'), 0, false, pg_temp.players(:'game', 99, 999)), 'paused', 'and so does an engine that has gone back');
SELECT results_eq(
    format('SELECT status, current_turn FROM pg_temp.runtime(%L)', :'game'), $$VALUES ('generation_failed', 1)$$, 'which does not take the game with it');
SELECT results_eq(
    format('SELECT count(*), max(planets) FROM backend.memberships WHERE game_id = %L', :'game'), 'VALUES (2::bigint, 2)', 'nor anybody''s planets');
SELECT results_eq(
    format($$SELECT error FROM backend.runtime_operation_log WHERE game_id = %L AND outcome = 'failed' ORDER BY operation_id DESC LIMIT 2$$, :'game'),
    $$VALUES ('the engine is in turn 0, ours is 1'), ('the engine is in turn 1, ours is 1')$$, 'the log says where it was');
SELECT is((SELECT count(*) FROM backend.push_pending WHERE kind = 'game.turn.ready' AND payload ->> 'turn' = '1'), 2::bigint, 'nobody is told of a turn again');
SELECT pg_temp.go_on(:'game') \g /dev/null
-- One that was called off while the engine may be at it: nobody else asks it before the lease is over.
UPDATE backend.runtime_records SET turn_requested_at = backend.now() WHERE game_id = :'game';
SELECT is(worker.turn_failed(:'game', c.lease_number, 'engine_unreachable', 'no answer', true), 'paused', 'a turn that is not answered in time') FROM worker.turn_claim(:'game', 60) AS c;
SELECT is(worker.runtime_observed(:'game', 1, 'c1', 'http://e1:8080'), false, 'is not over because the engine answers something');
SELECT throws_ok(format('SELECT pg_temp.go_on(%L)', :'game'), 'GX422', 'engine_not_healthy', 'and the game does not go on');
SELECT pg_temp.advance('1 minute') \g /dev/null
SELECT lives_ok(format('SELECT pg_temp.go_on(%L)', :'game'), 'until the lease is over');
DELETE FROM backend.push_pending;
UPDATE backend.runtime_records SET turn_requested_at = backend.now() WHERE game_id = :'game';
SELECT is(worker.turn_report(:'game', pg_temp.turn_claim(:'game'), 4, false, pg_temp.players(:'game', 3, 30)), 'done', 'one that is past ours is followed');
SELECT is((pg_temp.runtime(:'game')).current_turn, 4, 'to where it is');
SELECT is((SELECT count(*) FROM backend.push_pending WHERE kind = 'game.turn.ready' AND payload ->> 'turn' = '4'), 2::bigint, 'of which everybody is told');

-- Turns that were missed run once.
SELECT pg_temp.advance('10 hours') \g /dev/null
SELECT is(worker.turns_defer(10), 1, 'ten turns that were missed');
SELECT is(worker.turn_report(:'game', pg_temp.turn_claim(:'game'), 5, false, pg_temp.players(:'game')), 'done', 'run once');
SELECT is((pg_temp.runtime(:'game')).next_turn_at, date_trunc('hour', backend.now()) + interval '1 hour', 'the next is the first after now');
SELECT is(worker.turns_defer(10), 0, 'and none is due');

-- By force: the next of the schedule is skipped.
SELECT pg_temp.advance(date_trunc('hour', backend.now()) + interval '20 minutes' - backend.now()) \g /dev/null
SELECT date_trunc('hour', backend.now()) AS hour \gset
UPDATE backend.runtime_records SET next_turn_at = :'hour'::timestamptz + interval '1 hour' WHERE game_id = :'game';
SELECT api.runtime_force_next_turn('root', :'game') \g /dev/null
SELECT is(worker.turn_report(:'game', pg_temp.turn_claim(:'game'), 6, false, pg_temp.players(:'game')), 'done', 'a turn by force');
SELECT results_eq(
    format('SELECT next_turn_at, skip_next_turn FROM pg_temp.runtime(%L)', :'game'), format($$VALUES (%L::timestamptz + interval '2 hours', false)$$, :'hour'), 'is instead of the next one');
SELECT pg_temp.advance('1 hour') \g /dev/null
SELECT is(worker.turns_defer(10), 0, 'which does not come');
SELECT pg_temp.advance('1 hour') \g /dev/null
SELECT is(worker.turns_defer(10), 1, 'but the one after it does');
SELECT is(worker.turn_report(:'game', pg_temp.turn_claim(:'game'), 7, false, pg_temp.players(:'game')), 'done', 'that is of the schedule');
SELECT is((pg_temp.runtime(:'game')).next_turn_at, :'hour'::timestamptz + interval '3 hours', 'and skips none');
SELECT api.runtime_force_next_turn('root', :'game') \g /dev/null
SELECT pg_temp.advance('45 minutes') \g /dev/null
SELECT is(worker.turn_report(:'game', pg_temp.turn_claim(:'game'), 8, false, pg_temp.players(:'game')), 'done', 'one by force that ran only after the next one''s time');
SELECT is((pg_temp.runtime(:'game')).next_turn_at, :'hour'::timestamptz + interval '4 hours', 'was instead of that one, and skips no other');

-- A turn fails: the game pauses, and says why.
DELETE FROM backend.push_pending;
UPDATE backend.runtime_records SET turn_requested_at = backend.now() WHERE game_id = :'game';
SET LOCAL ROLE backend_worker;
SELECT is(worker.turn_failed(:'game', c.lease_number, 'generation_failed', 'out of memory', false), 'paused', 'a turn that cannot be computed') FROM worker.turn_claim(:'game', 60) AS c;
RESET ROLE;
SELECT results_eq(
    format('SELECT g.status, g.status_reason, r.status, r.wanted, r.turn_requested_at, r.lease_until FROM backend.games AS g JOIN backend.runtime_records AS r USING (game_id) WHERE game_id = %L', :'game'),
    $$VALUES ('paused', 'generation_failed', 'generation_failed', 'running', NULL::timestamptz, NULL::timestamptz)$$, 'pauses the game, which says why');
SELECT set_eq(
    $$SELECT user_id, kind, payload, request_id FROM backend.push_pending WHERE kind <> 'diplomail.received'$$,
    format($$SELECT u::uuid AS u, 'game.paused' AS k, jsonb_build_object('game_id', %1$L::uuid, 'turn', 8, 'reason', 'generation_failed') AS p, 'paused:%1$s:8' AS r FROM unnest(ARRAY[%2$L, %3$L]) AS u$$,
           :'game', :'ann', :'bob'), 'every member is told');
SELECT results_eq(
    'SELECT user_id, payload FROM backend.notifications WHERE kind = ''game.generation.failed'' AND payload ->> ''turn'' = ''9''',
    format($$VALUES (NULL::uuid, jsonb_build_object('game_id', %L::uuid, 'turn', 9, 'reason', 'generation_failed'))$$, :'game'), 'administrators too, of which turn');
SELECT is((SELECT error FROM backend.runtime_operation_log WHERE game_id = :'game' ORDER BY operation_id DESC LIMIT 1), 'out of memory', 'what went wrong is kept');
SELECT results_eq(
    format('SELECT action, actor_type FROM backend.game_history WHERE game_id = %L ORDER BY history_id DESC LIMIT 1', :'game'), $$VALUES ('generation-failed', 'job')$$, 'it was no person''s doing');
SELECT pg_temp.advance('2 hours') \g /dev/null
SELECT is(worker.turns_defer(10), 0, 'a paused game has no turns');
SELECT throws_ok(format('SELECT api.game_resume(%L, %L)', :'ann', :'game'), 'GX422', 'engine_not_healthy', 'nor goes on while its engine is not well');
SELECT is(worker.runtime_observed(:'game', 1, 'c1', 'http://e1:8080'), true, 'it is seen well again');
SELECT is(api.game_resume(:'ann', :'game')::jsonb ->> 'status', 'running', 'then the game goes on');
UPDATE backend.runtime_records SET turn_requested_at = backend.now(), skip_next_turn = true WHERE game_id = :'game';
SELECT is(worker.turn_failed(:'game', pg_temp.turn_claim(:'game'), 'engine_unreachable', 'x', false), 'paused', 'an engine that does not answer');
SELECT results_eq(
    format('SELECT g.status_reason, r.status, r.skip_next_turn FROM backend.games AS g JOIN backend.runtime_records AS r USING (game_id) WHERE game_id = %L', :'game'),
    $$VALUES ('engine_unreachable', 'engine_unreachable', false)$$, 'pauses it too; a turn by force that was none skips none');
SELECT worker.runtime_observed(:'game', 1, 'c1', 'http://e1:8080'), api.game_resume(:'ann', :'game') \g /dev/null

-- Paused by its owner in the middle of a turn.
UPDATE backend.runtime_records SET turn_requested_at = backend.now() WHERE game_id = :'game';
SELECT pg_temp.turn_claim(:'game') AS lease \gset
SELECT api.game_pause(:'ann', :'game') \g /dev/null
SELECT is(pg_temp.turn_claim(:'game'), NULL, 'a turn of a paused game is not claimed');
SELECT is(worker.turn_report(:'game', :lease, 9, false, pg_temp.players(:'game')), 'done', 'one that was being computed is stored');
SELECT results_eq(
    format('SELECT g.status, g.status_reason, r.status, r.current_turn FROM backend.games AS g JOIN backend.runtime_records AS r USING (game_id) WHERE game_id = %L', :'game'),
    $$VALUES ('paused', 'by_owner', 'running', 9)$$, 'and the game stays paused');
UPDATE backend.runtime_records SET turn_requested_at = backend.now(), skip_next_turn = true WHERE game_id = :'game';
SELECT is(pg_temp.turn_claim(:'game'), NULL, 'a turn by force that was asked for before');
SELECT results_eq(
    format('SELECT turn_requested_at, skip_next_turn FROM pg_temp.runtime(%L)', :'game'), 'VALUES (NULL::timestamptz, false)', 'is forgotten, and skips none');
SELECT api.game_resume(:'ann', :'game') \g /dev/null
UPDATE backend.runtime_records SET turn_requested_at = backend.now() WHERE game_id = :'game';
SELECT pg_temp.turn_claim(:'game') AS lease \gset
SELECT api.game_pause(:'ann', :'game') \g /dev/null
SELECT is(worker.turn_failed(:'game', :lease, 'generation_failed', 'x', false), 'paused', 'one that fails in a game that is paused');
SELECT results_eq(
    format('SELECT g.status_reason, r.status FROM backend.games AS g JOIN backend.runtime_records AS r USING (game_id) WHERE game_id = %L', :'game'),
    $$VALUES ('by_owner', 'generation_failed')$$, 'leaves it paused by whoever paused it');
SELECT worker.runtime_observed(:'game', 1, 'c1', 'http://e1:8080'), api.game_resume(:'ann', :'game') \g /dev/null

-- What the reconciler sees.
SET LOCAL ROLE backend_worker;
SELECT set_has(
    'SELECT game_id, wanted, status, generation, engine_version, image_ref, container_id, endpoint FROM worker.runtimes_list(NULL)',
    format($$VALUES (%L::uuid, 'running', 'running', 1, '1.2.0', 'galaxy/engine:1.2.0', 'c1', 'http://e1:8080')$$, :'game'), 'it gets every engine that is recorded');
SELECT is((SELECT count(*) FROM worker.runtimes_list(NULL)), 4::bigint, 'those that are stopped too');
SELECT is((SELECT count(*) FROM worker.runtimes_list(:'game')), 1::bigint, 'or one game''s');
SELECT is(worker.runtime_is_wanted(:'game', g), w, d)
  FROM (VALUES (1, true, 'an engine that is wanted is told of'), (NULL, true, 'of any generation'), (2, false, 'and not one of another')) AS t(g, w, d);
SELECT is(worker.runtime_is_wanted(:'nowhere', NULL), false, 'nor of no game');
SELECT is(worker.runtime_moved(g::uuid, 1, 'c2', 'http://e2:8080'), false, d)
  FROM (VALUES (:'game', 'who has no lease has started nothing again'), (:'nowhere', 'nor of no game')) AS t(g, d);
RESET ROLE;
SELECT is(worker.runtime_observed(:'game', 1, 'c9', 'http://e9:8080'), true, 'one that is seen well is written down');
SELECT results_eq(
    format('SELECT status, container_id, endpoint, last_observed_at FROM pg_temp.runtime(%L)', :'game'), $$VALUES ('running', 'c9', 'http://e9:8080', backend.now())$$, 'as it is');
SELECT is(worker.runtime_observed(:'game', g, 'x', 'http://x'), false, format('not one of generation %s', g)) FROM unnest(ARRAY[0, 2, NULL]) AS g;
UPDATE backend.runtime_records SET turn_requested_at = backend.now() WHERE game_id = :'game';
SELECT pg_temp.turn_claim(:'game') AS lease \gset
SELECT is(worker.runtime_observed(:'game', 1, 'x', 'http://x'), false, 'nor while somebody works on it');
SELECT is((pg_temp.runtime(:'game')).status, 'generating', 'who says how it is');
SELECT pg_temp.advance('60 seconds') \g /dev/null
SELECT is(worker.runtime_observed(:'game', 1, 'c9', 'http://e9:8080'), true, 'but where they have not for so long');
SELECT is((pg_temp.runtime(:'game')).status, 'running', 'it is as it is seen');
SELECT lives_ok(format($$SELECT worker.turn_failed(%L, %s, 'generation_failed', 'late', false)$$, :'game', :lease), 'who says late that the turn failed is heard: nobody else has it');
SELECT is((pg_temp.runtime(:'game')).status, 'generation_failed', 'and believed');
SELECT worker.runtime_observed(:'game', 1, 'c9', 'http://e9:8080') \g /dev/null
SELECT is((pg_temp.runtime(:'game')).status, 'running', 'until it is seen well');
SELECT pg_temp.made(:'ann', :'bob', 'starting') AS starting \gset
SELECT is(worker.runtime_observed(:'starting', 1, 'x', 'http://x'), false, 'one that is being started is seen by its starter');
SELECT is((pg_temp.runtime(:'starting')).status, 'starting', 'and by nobody else');

-- A start that was lost is sent again.
SELECT pg_temp.advance('1 minute') \g /dev/null
SELECT is(pg_temp.jobs(:'starting', 'runtime_start'), 1::bigint, 'a start has its job');
SELECT is(worker.runtimes_unsettled_defer(0), 0, 'none is sent again where none is asked for');
SELECT is(worker.runtimes_unsettled_defer(10), 1, 'a start that nobody does is sent again');
SELECT is(pg_temp.jobs(:'starting', 'runtime_start'), 2::bigint, 'as its job');
SELECT is(worker.runtimes_unsettled_defer(10), 0, 'not all the time');
SELECT pg_temp.advance('30 seconds') \g /dev/null
SELECT is(worker.runtimes_unsettled_defer(10), 1, 'but again');
SELECT pg_temp.start_claim(:'starting', 300) AS lease \gset
SELECT pg_temp.advance('299 seconds') \g /dev/null
SELECT is(worker.runtimes_unsettled_defer(10), 0, 'not while somebody is at it');
SELECT pg_temp.advance('1 second') \g /dev/null
SELECT is(worker.runtimes_unsettled_defer(10), 1, 'and when they have not come back');

-- Removal goes before everything else.
SELECT pg_temp.start_claim(:'starting', 300) AS lease \gset
SELECT is(pg_temp.remove_claim(:'starting'), NULL, 'what is wanted is not removed');
SELECT (backend.game_transition(g, 'force-stop', 'admin', 'root')).status FROM backend.game_lock(:'starting') AS g \g /dev/null
SELECT is(pg_temp.jobs(:'starting', 'runtime_remove'), 1::bigint, 'an engine that is not wanted is removed by a job');
SELECT is(pg_temp.remove_claim(:'starting'), :lease + 1::bigint, 'who removes it takes the lease over from who starts it');
SELECT pg_temp.everything(:'starting') AS before \gset
SELECT is(worker.runtime_started(:'starting', :lease, 'x', 'http://x', 0, pg_temp.players(:'starting')), false, 'who says then that it runs is too late');
SELECT is(worker.runtime_start_failed(:'starting', :lease, 'image_pull_failed', 'x'), false, 'or that it does not');
SELECT is(worker.runtime_removed(:'starting', :lease), false, 'nor has it removed anything');
SELECT is(worker.runtime_started(:'starting', :lease + 1, 'x', 'http://x', 0, pg_temp.players(:'starting')), false, 'what is cancelled does not start, whoever says so');
SELECT is(pg_temp.everything(:'starting'), :'before', 'nothing has changed');
SELECT is(worker.runtime_observed(:'starting', 1, 'x', 'http://x'), false, 'it is not seen well');
SELECT is(worker.runtime_moved(:'starting', :lease + 1, 'x', 'http://x'), false, 'nor started again');
SELECT is(pg_temp.start_claim(:'starting'), NULL, 'nor started');
SELECT is(pg_temp.turn_claim(:'starting'), NULL, 'nor does it compute');
SELECT pg_temp.advance('60 seconds') \g /dev/null
SELECT is(worker.runtimes_unsettled_defer(10), 1, 'a removal that nobody does is sent again');
SELECT is(pg_temp.jobs(:'starting', 'runtime_remove'), 2::bigint, 'as its job');
SELECT is((SELECT array_agg(DISTINCT priority) FROM procrastinate.procrastinate_jobs WHERE task_name = 'runtime_remove'), ARRAY[10], 'before all others');
SELECT pg_temp.remove_claim(:'starting') AS lease \gset
SET LOCAL ROLE backend_worker;
SELECT is(worker.runtime_removed(:'starting', :lease), true, 'it is gone');
SELECT is((SELECT count(*) FROM worker.runtimes_list(:'starting')), 0::bigint, 'and not looked for any more');
RESET ROLE;
SELECT results_eq(
    format('SELECT status, container_id, endpoint, lease_until FROM pg_temp.runtime(%L)', :'starting'), $$VALUES ('removed', NULL, NULL, NULL::timestamptz)$$, 'with all that was known of it');
SELECT is(worker.runtime_removed(:'starting', :lease), false, 'it is said once');
SELECT is(pg_temp.remove_claim(:'starting'), NULL, 'and done once');
SELECT is(worker.runtimes_unsettled_defer(10), 0, 'nothing is left to do');

-- The engine says that the game is over.
UPDATE backend.runtime_records SET turn_requested_at = backend.now(), status = 'running' WHERE game_id = :'game';
SELECT worker.runtime_observed(:'game', 1, 'c9', 'http://e9:8080') \g /dev/null
UPDATE backend.games SET status = 'running' WHERE game_id = :'game';
INSERT INTO backend.game_history (game_id, action, to_status, actor_type) VALUES (:'game', 'resume', 'running', 'user');
SELECT pg_temp.turn_claim(:'game') AS lease \gset
DELETE FROM backend.push_pending;
SET LOCAL ROLE backend_worker;
SELECT is(worker.turn_report(:'game', :lease, 10, true, '[{"raceName": "Alphas", "planets": 9, "population": 90}, {"raceName": "Betas", "planets": 9, "population": 1}]'), 'finished', 'the last turn');
RESET ROLE;
SELECT results_eq(
    format('SELECT g.status, g.finished_at, r.current_turn, r.next_turn_at FROM backend.games AS g JOIN backend.runtime_records AS r USING (game_id) WHERE game_id = %L', :'game'),
    $$VALUES ('finished', backend.now(), 10, NULL::timestamptz)$$, 'ends the game');
SELECT set_eq(
    'SELECT kind, count(*) FROM backend.push_pending GROUP BY kind',
    $$VALUES ('game.turn.ready', 2::bigint), ('game.finished', 2), ('lobby.race_name.pending', 2)$$, 'of which everybody is told');
SELECT is((SELECT array_agg(tier ORDER BY race_name) FROM backend.race_names WHERE tier <> 'released'), ARRAY['pending_registration', 'pending_registration'], 'who grew has earned their name');
SELECT pg_temp.everything(:'game') AS before \gset
SELECT is(worker.turn_report(:'game', :lease, 11, true, '[]'), 'superseded', 'it is over once');
SELECT is(pg_temp.turn_claim(:'game'), NULL, 'and has no turns');
SELECT is(pg_temp.everything(:'game'), :'before', 'nothing has changed');
SELECT pg_temp.advance('1 day') \g /dev/null
SELECT is(worker.turns_defer(10), 0, 'nor does the schedule bring one');

SELECT is_empty('SELECT * FROM backend.invariants', 'nothing is wrong after all this');
-- Races out of play.
SELECT pg_temp.person('out_a', 'permanent') AS out_a, pg_temp.person('out_b') AS out_b \gset
SELECT pg_temp.game(:'out_a', '{"race_name": "Stayers"}') AS out \gset
SELECT pg_temp.join(:'out', :'out_b', 'Leavers') AS seat \gset
SELECT pg_temp.bring(:'out', 'running') \g /dev/null
SELECT is_empty(format('SELECT * FROM worker.banish_claim(%L, 60)', :'out'), 'there is nothing to tell an engine that all play in');
SELECT api.membership_remove(:'out_b', :'out', :'seat') \g /dev/null
SELECT lease_number AS lease, races FROM worker.banish_claim(:'out', 60) \gset
SELECT is(:'races'::text, '{Leavers}', 'then there is');
SELECT is_empty(format('SELECT * FROM worker.banish_claim(%L, 60)', :'out'), 'for one at a time');
SELECT is(worker.banish_report(:'out', :lease + 1, '{Leavers}', NULL), false, 'who has no lease says nothing');
SELECT is(worker.banish_report(:'out', :lease, '{}', 'it does not answer'), true, 'what could not be told');
SELECT is(worker.banishes_defer(10), 0, 'waits');
SELECT pg_temp.advance('30 seconds') \g /dev/null
SELECT is(worker.banishes_defer(10), 1, 'and is brought back');
SELECT is(worker.banishes_defer(10), 0, 'once');
SELECT lease_number AS lease FROM worker.banish_claim(:'out', 60) \gset
SELECT is(worker.banish_report(:'out', :lease, '{Leavers}', NULL), true, 'what was told');
SELECT is((SELECT banished_at FROM backend.memberships WHERE membership_id = :'seat'), backend.now(), 'is written down');
SELECT pg_temp.advance('1 minute') \g /dev/null
SELECT is(worker.banishes_defer(10), 0, 'and over');
SELECT is((SELECT array_agg(outcome ORDER BY operation_id) FROM backend.runtime_operation_log WHERE game_id = :'out' AND operation = 'banish'), '{failed,done}', 'with what came of each try');
-- Leases that are renewed.
SELECT pg_temp.made(:'ann', :'bob', 'starting') AS long \gset
SELECT pg_temp.start_claim(:'long', 60) AS lease \gset
SELECT pg_temp.advance('50 seconds') \g /dev/null
SET LOCAL ROLE backend_worker;
SELECT is(worker.runtime_lease_renew(:'long', :lease, 60), true, 'who is at it for long says so');
SELECT is(worker.runtime_lease_renew(:'long', :lease - 1, 60), false, 'not who was at it before');
RESET ROLE;
SELECT pg_temp.advance('50 seconds') \g /dev/null
SELECT is(pg_temp.start_claim(:'long'), NULL, 'nobody takes it over');
SELECT pg_temp.advance('10 seconds') \g /dev/null
SELECT is(worker.runtime_lease_renew(:'long', :lease, 60), false, 'a lease that is over stays so');
SELECT is(pg_temp.start_claim(:'long'), :lease + 1::bigint, 'and is taken over');
SELECT is(worker.runtime_started(:'long', :lease + 1, 'c1', 'http://e1:8080', 0, pg_temp.players(:'long')), true, 'the engine runs');
SELECT is(worker.runtime_lease_renew(:'long', :lease + 1, 60), false, 'a lease that was handed in is not renewed');

-- A turn that may have been asked for is told of as such, until somebody tells what came of it.
CREATE FUNCTION pg_temp.asked(p_game_id uuid) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    v_is_outstanding boolean;
BEGIN
    UPDATE backend.runtime_records SET turn_requested_at = backend.now(), lease_until = NULL WHERE game_id = p_game_id;
    SELECT c.is_outstanding INTO v_is_outstanding FROM worker.turn_claim(p_game_id, 60) AS c;
    RETURN v_is_outstanding;
END;
$$;
CREATE FUNCTION pg_temp.lease(p_game_id uuid) RETURNS bigint
LANGUAGE sql
RETURN (SELECT r.lease_number FROM backend.runtime_records AS r WHERE r.game_id = p_game_id);
SELECT is(pg_temp.asked(:'long'), false, 'the first time nobody has asked before');
SELECT is(pg_temp.asked(:'long'), true, 'after a worker that died somebody may have');
SELECT is(worker.runtime_moved(:'long', pg_temp.lease(:'long') - 1, 'c2', 'http://e2:8080'), false, 'who has the lease no more has started nothing again');
SELECT is(worker.runtime_moved(:'long', pg_temp.lease(:'long'), 'c2', 'http://e2:8080'), true, 'who has it may have');
SELECT results_eq(
    format('SELECT container_id, endpoint, status FROM pg_temp.runtime(%L)', :'long'), $$VALUES ('c2', 'http://e2:8080', 'generating')$$, 'there it is, at the same turn');
SELECT is((SELECT operation FROM backend.runtime_operation_log WHERE game_id = :'long' ORDER BY operation_id DESC LIMIT 1), 'start', 'as is written down');
SELECT worker.turn_report(:'long', pg_temp.lease(:'long'), 1, false, pg_temp.players(:'long')) \g /dev/null
SELECT is(pg_temp.asked(:'long'), false, 'a report ends that');
SELECT worker.turn_failed(:'long', pg_temp.lease(:'long'), 'engine_unreachable', 'x', true) \g /dev/null
SELECT pg_temp.advance('1 minute') \g /dev/null
SELECT pg_temp.go_on(:'long') \g /dev/null
SELECT is(pg_temp.asked(:'long'), true, 'a turn that was not answered in time may still come');
SELECT worker.turn_failed(:'long', pg_temp.lease(:'long'), 'generation_failed', 'x', false, true), pg_temp.go_on(:'long') \g /dev/null
SELECT is(pg_temp.asked(:'long'), true, 'and one that broke off');
SELECT worker.turn_failed(:'long', pg_temp.lease(:'long'), 'generation_failed', 'x', false), pg_temp.go_on(:'long') \g /dev/null
SELECT is(pg_temp.asked(:'long'), false, 'not one that was refused');
SELECT worker.turn_report(:'long', pg_temp.lease(:'long'), 2, false, pg_temp.players(:'long')) \g /dev/null

-- An engine that runs and does not answer: once may be chance, then it is replaced.
DELETE FROM backend.push_pending;
SET LOCAL ROLE backend_worker;
SELECT is(worker.runtime_unwell(:'long', g, 'does_not_answer', 'x', 30), 'superseded', format('one of generation %s is not the one that is wanted', g)) FROM unnest(ARRAY[0, 2, NULL]) AS g;
SELECT is(worker.runtime_unwell(:'long', 1, 'does_not_answer', 'silence', 30), 'noted', 'it does not answer');
SELECT is(worker.runtime_unwell(:'long', 1, 'does_not_answer', 'silence', 30), 'noted', 'two workers at one time see it once');
RESET ROLE;
SELECT results_eq(
    format('SELECT is_healthy, details FROM backend.runtime_health_snapshots WHERE game_id = %L ORDER BY snapshot_id DESC LIMIT 2', :'long'),
    $$VALUES (false, 'silence'), (true, NULL)$$, 'how it answers is stored where it changes');
SELECT api.game_pause(:'ann', :'long') \g /dev/null
SELECT throws_ok(format('SELECT api.game_resume(%L, %L)', :'ann', :'long'), 'GX422', 'engine_not_healthy', 'the game does not go on meanwhile');
SELECT worker.runtime_observed(:'long', 1, 'c1', 'http://e1:8080') \g /dev/null
SELECT is(api.game_resume(:'ann', :'long')::jsonb ->> 'status', 'running', 'once it answers it does');
SELECT is(pg_temp.jobs(:'long', 'runtime_check') > 0, true, 'and is looked at again');
SELECT worker.runtime_unwell(:'long', 1, 'does_not_answer', 'silence', 30), pg_temp.advance('30 seconds') \g /dev/null
SELECT is(worker.runtime_unwell(:'long', 1, 'does_not_answer', 'silence', 30), 'replaced', 'that does not answer again is replaced');
SELECT results_eq(
    format('SELECT wanted, status, generation FROM pg_temp.runtime(%L)', :'long'), $$VALUES ('running', 'starting', 2)$$, 'by one of the next generation');
SELECT is(pg_temp.jobs(:'long', 'runtime_start'), 2::bigint, 'which a job starts');
SELECT is(pg_temp.state(:'long'), 'running', 'the game goes on');
SELECT is(worker.runtime_unwell(:'long', 2, 'does_not_answer', 'x', 0), 'superseded', 'who starts it says how it is');
SELECT results_eq(format('SELECT generation, operation FROM worker.runtime_start_claim(%L, 60)', :'long'), $$VALUES (2, 'restart')$$, 'it is started anew');
SELECT is(worker.runtime_started(:'long', pg_temp.lease(:'long'), 'c2', 'http://e2:8080', 2, pg_temp.players(:'long')), true, 'it knows its game');
SELECT results_eq(
    format('SELECT status, container_id, current_turn, lease_until FROM pg_temp.runtime(%L)', :'long'), $$VALUES ('running', 'c2', 2, NULL::timestamptz)$$, 'and runs');
SELECT worker.runtime_unwell(:'long', 2, 'does_not_answer', 'silence', 30), pg_temp.advance('30 seconds') \g /dev/null
SELECT is(worker.runtime_unwell(:'long', 2, 'does_not_answer', 'silence', 30), 'paused', 'one that was never seen well since pauses the game');
SELECT results_eq(
    format('SELECT g.status, g.status_reason, r.status, r.generation FROM backend.games AS g JOIN backend.runtime_records AS r USING (game_id) WHERE game_id = %L', :'long'),
    $$VALUES ('paused', 'engine_unreachable', 'engine_unreachable', 2)$$, 'and is not replaced again');
SELECT pg_temp.advance('1 hour') \g /dev/null
SELECT is(worker.runtime_unwell(:'long', 2, 'does_not_answer', 'silence', 30), 'replaced', 'for an hour');
SELECT pg_temp.start_claim(:'long') \g /dev/null
SELECT is(worker.runtime_started(:'long', pg_temp.lease(:'long'), 'c3', 'http://e3:8080', 1, pg_temp.players(:'long')), true, 'an engine that has gone back');
SELECT results_eq(
    format('SELECT g.status, g.status_reason, r.wanted, r.status, r.container_id, r.endpoint FROM backend.games AS g JOIN backend.runtime_records AS r USING (game_id) WHERE game_id = %L', :'long'),
    $$VALUES ('paused', 'engine_unreachable', 'running', 'engine_unreachable', NULL::text, NULL::text)$$, 'pauses the game; another is still wanted, and this one is nowhere');
SELECT is((SELECT count(*) FROM backend.notifications WHERE kind = 'runtime.container_start_failed' AND payload ->> 'game_id' = :'long'), 1::bigint, 'administrators are told');
SELECT is(worker.runtime_unwell(:'long', 3, 'container_start_failed', 'no room', 30), 'paused', 'one that cannot be started');
SELECT is((pg_temp.runtime(:'long')).status, 'engine_unreachable', 'stays so');
UPDATE backend.runtime_records SET container_id = 'c3', endpoint = 'http://e3:8080' WHERE game_id = :'long';
SELECT worker.runtime_unwell(:'long', 3, 'container_start_failed', 'no room', 30) \g /dev/null
SELECT is((SELECT ROW(container_id, endpoint)::text FROM backend.runtime_records WHERE game_id = :'long'), '(,)', 'nor is it where it was');
SELECT is((SELECT count(*) FROM backend.notifications WHERE kind = 'runtime.container_start_failed' AND payload ->> 'game_id' = :'long'), 1::bigint, 'of which nobody is told twice');
SELECT is(worker.runtime_was_started(:'long', 3), true, 'it is started after all');
SELECT is(worker.runtime_was_started(:'long', 2), false, 'and no other');
SELECT is((SELECT operation FROM backend.runtime_operation_log WHERE game_id = :'long' ORDER BY operation_id DESC LIMIT 1), 'start', 'which is written down');
SELECT is(worker.runtime_observed(:'long', 3, 'c3', 'http://e3:8080'), true, 'it is well');
SELECT api.game_resume(:'ann', :'long') \g /dev/null
SELECT is(worker.runtime_unwell(:'long', 3, 'is_gone', 'gone', 30), 'paused', 'a container that is gone');
SELECT results_eq(
    format('SELECT g.status, g.status_reason, r.wanted, r.status, r.container_id FROM backend.games AS g JOIN backend.runtime_records AS r USING (game_id) WHERE game_id = %L', :'long'),
    $$VALUES ('paused', 'container_gone', 'running', 'stopped', NULL)$$, 'is marked, and its game paused');

-- A game that is over keeps its engine, for its reports.
SELECT pg_temp.made(:'ann', :'bob', 'running') AS over \gset
UPDATE backend.runtime_records SET turn_requested_at = backend.now() WHERE game_id = :'over';
SELECT is(worker.turn_report(:'over', pg_temp.turn_claim(:'over'), 1, true, pg_temp.players(:'over')), 'finished', 'a game is over');
SELECT worker.runtime_unwell(:'over', 1, 'does_not_answer', 'silence', 30), pg_temp.advance('30 seconds') \g /dev/null
SELECT is(worker.runtime_unwell(:'over', 1, 'does_not_answer', 'silence', 30), 'replaced', 'its engine is replaced like others');
SELECT is(worker.runtime_started(:'over', pg_temp.start_claim(:'over'), 'c2', 'http://e2:8080', 1, pg_temp.players(:'over')), true, 'and runs again');
SELECT results_eq(
    format('SELECT g.status, r.status, r.next_turn_at FROM backend.games AS g JOIN backend.runtime_records AS r USING (game_id) WHERE game_id = %L', :'over'),
    $$VALUES ('finished', 'running', NULL::timestamptz)$$, 'without turns');
SELECT is(worker.finished_engines_unwant(10), 0, 'for as long as engines of finished games are kept');

-- Logs.
SELECT is(worker.runtime_logs_store(:'long', 'x', NULL), false, 'a log that nobody asked for is not stored');
SELECT api.runtime_logs_take('root', :'long') \g /dev/null
SELECT is(worker.runtime_logs_defer(10), 0, 'one that was asked for has its job');
SELECT pg_temp.advance('31 seconds') \g /dev/null
UPDATE backend.runtime_logs SET updated_at = backend.now() - interval '31 seconds';
SET LOCAL ROLE backend_worker;
SELECT is(worker.runtime_logs_store(:'long', 'two lines', NULL), true, 'its tail is stored');
SELECT is(worker.runtime_logs_defer(10), 0, 'then nothing is left to do');
RESET ROLE;
SELECT is(api.runtime_logs_get('root', :'long')::jsonb ->> 'content', 'two lines', 'and shown');
SELECT api.runtime_logs_take('root', :'long') \g /dev/null
ALTER TABLE backend.runtime_logs DISABLE TRIGGER touch;
UPDATE backend.runtime_logs SET updated_at = backend.now() - interval '31 seconds';
ALTER TABLE backend.runtime_logs ENABLE TRIGGER touch;
SELECT is(worker.runtime_logs_defer(10), 1, 'where the job was lost the sweep sends another');
SELECT is(worker.runtime_logs_store(:'long', NULL, 'no such container'), true, 'one that cannot be had');
SELECT results_eq(format('SELECT content, error FROM backend.runtime_logs WHERE game_id = %L', :'long'), $$VALUES ('two lines', 'no such container')$$, 'says why, and leaves the one before');

-- Health is kept for 30 days, the last of an engine for ever.
SELECT worker.runtime_health_purge(1000) \g /dev/null
SELECT count(*) AS health FROM backend.runtime_health_snapshots \gset
SELECT pg_temp.advance('30 days') \g /dev/null
SELECT is(worker.runtime_health_purge(1), 1, 'health is forgotten by so many');
SELECT worker.runtime_health_purge(1000) \g /dev/null
SELECT is((SELECT count(*) < :health FROM backend.runtime_health_snapshots), true, 'then all the others');
SELECT is((SELECT count(*) FROM backend.runtime_health_snapshots WHERE game_id = :'long'), 1::bigint, 'but for the last of each engine');

-- So is what was done.
SELECT count(*) AS operations, count(DISTINCT l.game_id) FILTER (WHERE r.status <> 'removed') AS engines,
       count(*) FILTER (WHERE r.status = 'removed') AS of_removed
  FROM backend.runtime_operation_log AS l JOIN backend.runtime_records AS r USING (game_id) \gset
SELECT is(worker.runtime_operations_purge(1), 1, 'operations are forgotten by so many');
SELECT worker.runtime_operations_purge(1000) \g /dev/null
SELECT is((SELECT count(*) FROM backend.runtime_operation_log), :engines::bigint, 'then all the others, but for the last of each engine that is there');

-- So are the engines of finished games.
SELECT array_agg(g.game_id ORDER BY r.finished_at) AS finished, count(*) AS finished_count
  FROM backend.games AS g JOIN backend.runtime_records AS r USING (game_id) WHERE g.status = 'finished' AND r.wanted = 'running' \gset
SELECT count(*) AS others FROM backend.runtime_records WHERE wanted = 'running' AND game_id <> ALL (:'finished') \gset
SELECT is(worker.finished_engines_unwant(1), 1, 'engines of finished games are taken away by so many');
SELECT results_eq(
    format($$SELECT j.task_name::text, j.args ->> 'game_id', j.lock::text FROM procrastinate.procrastinate_jobs AS j
              WHERE j.task_name = 'runtime_remove' AND j.args ->> 'game_id' = ANY (%L::text[])$$, :'finished'),
    format($$SELECT 'runtime_remove', (%L::uuid[])[1]::text, 'game:' || (%1$L::uuid[])[1]$$, :'finished'), 'by a job, what finished first before others');
SELECT is(worker.finished_engines_unwant(100), :finished_count - 1, 'then all the others');
SELECT is(worker.finished_engines_unwant(100), 0, 'each once');
SELECT is((SELECT array_agg(r.wanted) FROM backend.runtime_records AS r WHERE r.game_id = ANY (:'finished')), array_fill('removed'::text, ARRAY[:finished_count::integer]), 'they are not wanted');
SELECT is((SELECT count(*) FROM backend.runtime_records WHERE wanted = 'running'), :others::bigint, 'those of games that go on are');
SELECT is(:others > 0 AND :finished_count > 1, true, 'of which there are some');
UPDATE backend.clock SET clock_offset = '0';
SELECT is(:operations > :engines + :of_removed AND :of_removed > 0, true, 'of which there were more');

SELECT * FROM finish();
ROLLBACK;
