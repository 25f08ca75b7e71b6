-- Test galaxy-backend:worker/jobs

BEGIN;
SELECT plan(55);

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, result text);
INSERT INTO functions VALUES ('jobs_rescue', 'setof record'), ('jobs_purge', 'integer');
SELECT function_returns('worker', name, ARRAY['integer'], result, format('%s() is %s', name, result)) FROM functions;
SELECT volatility_is('worker', name, ARRAY['integer'], 'volatile', format('%s() is VOLATILE', name)) FROM functions;
SELECT is_definer('worker', name, ARRAY['integer'], format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('worker', name, ARRAY['integer'], 'backend_worker', ARRAY['EXECUTE'], format('backend_worker may execute %s()', name)) FROM functions;
SELECT function_privs_are('worker', name, ARRAY['integer'], r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_api', 'backend_push']) AS r;

-- Workers with hearts that beat at different times, and a job for each.
CREATE TEMPORARY TABLE workers (name text, id bigint);
WITH w AS (
    INSERT INTO procrastinate.procrastinate_workers (last_heartbeat)
    SELECT transaction_timestamp() - make_interval(secs => s) FROM unnest(ARRAY[29.9, 30, 3600]) AS s RETURNING id, last_heartbeat)
INSERT INTO workers SELECT (ARRAY['alive', 'late', 'dead'])[row_number() OVER (ORDER BY last_heartbeat DESC)], id FROM w;
CREATE FUNCTION pg_temp.job(p_name text, p_worker text, p_attempts integer DEFAULT 0, p_lock text DEFAULT NULL) RETURNS bigint LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO procrastinate.procrastinate_jobs (queue_name, task_name, status, attempts, worker_id, lock)
    VALUES ('test', p_name, 'doing', p_attempts, (SELECT w.id FROM workers AS w WHERE w.name = p_worker), p_lock) RETURNING id;
END;
CREATE FUNCTION pg_temp.state(p_name text) RETURNS text LANGUAGE sql
RETURN (SELECT concat_ws(' ', j.status, j.attempts) FROM procrastinate.procrastinate_jobs AS j WHERE j.task_name = p_name);
SET LOCAL search_path = procrastinate, backend, pgtap;
SELECT pg_temp.job('of-alive', 'alive'), pg_temp.job('of-late', 'late', 3), pg_temp.job('of-dead', 'dead', 9, 'game-1'),
       pg_temp.job('of-nobody', 'gone'), pg_temp.job('tenth', 'dead', 10), backend.job_defer('test', 'waiting') \g /dev/null

-- Rescuing.
SET LOCAL ROLE backend_worker;
SELECT set_eq(
    'SELECT task_name, is_given_up FROM worker.jobs_rescue(30)',
    $$VALUES ('of-late', false), ('of-dead', false), ('of-nobody', false), ('tenth', true)$$,
    'the jobs of workers that were not heard of are found, and told which of them are given up');
SELECT is_empty('SELECT FROM worker.jobs_rescue(30)', 'once');
RESET ROLE;
SELECT is(pg_temp.state('of-alive'), 'doing 0', 'what a worker does that lives is left alone');
SELECT is(pg_temp.state('of-late'), 'todo 4', 'one that is late by its last heartbeat is not waited for');
SELECT is(pg_temp.state('of-dead'), 'todo 10', 'what a dead one did is done again');
SELECT is(pg_temp.state('of-nobody'), 'todo 1', 'and what nobody does');
SELECT is(pg_temp.state('tenth'), 'failed 11', 'but not for ever');
SELECT is(pg_temp.state('waiting'), 'todo 0', 'what waits goes on waiting');
SELECT is(
    (SELECT lock FROM procrastinate.procrastinate_jobs WHERE task_name = 'of-dead'), 'game-1', 'a job keeps its lock');
UPDATE backend.clock SET clock_offset = '1 day';
SELECT is_empty('SELECT FROM worker.jobs_rescue(30)', 'hearts beat by the server''s clock, not the platform''s');
UPDATE backend.clock SET clock_offset = '0';

-- Purging.
DELETE FROM procrastinate.procrastinate_jobs;
CREATE FUNCTION pg_temp.ended(p_name text, p_status text, p_ago interval) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_id bigint;
BEGIN
    INSERT INTO procrastinate.procrastinate_jobs (queue_name, task_name, status)
    VALUES ('test', p_name, p_status::procrastinate.procrastinate_job_status) RETURNING id INTO v_id;
    DELETE FROM procrastinate.procrastinate_events WHERE job_id = v_id;
    INSERT INTO procrastinate.procrastinate_events (job_id, type, at)
    VALUES (v_id, 'deferred', transaction_timestamp() - p_ago - interval '1 day'), (v_id, 'succeeded', transaction_timestamp() - p_ago);
END;
$$;
SELECT pg_temp.ended(s, s, '1 day 1 second') FROM unnest(ARRAY['succeeded', 'failed', 'cancelled', 'aborted', 'todo', 'doing']) AS s \g /dev/null
SELECT pg_temp.ended('today', 'succeeded', '23 hours'), pg_temp.ended('periodic', 'succeeded', '2 days') \g /dev/null
INSERT INTO procrastinate.procrastinate_periodic_defers (task_name, defer_timestamp, job_id, periodic_id)
SELECT task_name, 1, id, 'x' FROM procrastinate.procrastinate_jobs WHERE task_name = 'periodic';
SET LOCAL ROLE backend_worker;
SELECT is(worker.jobs_purge(3), 3, 'no more jobs are deleted than are asked for');
SELECT is(worker.jobs_purge(3), 1, 'then the rest of them');
SELECT is(worker.jobs_purge(3), 0, 'and then none');
RESET ROLE;
SELECT set_eq(
    'SELECT task_name::text FROM procrastinate.procrastinate_jobs', ARRAY['todo', 'doing', 'today', 'periodic'],
    'what is to be done, what ended today and the last of a periodic job are kept');
SELECT is_empty(
    'SELECT FROM procrastinate.procrastinate_events AS e WHERE NOT EXISTS (SELECT FROM procrastinate.procrastinate_jobs AS j WHERE j.id = e.job_id)',
    'a job''s events go with it');
SELECT lives_ok('DELETE FROM procrastinate.procrastinate_jobs', 'nothing else holds a job back');

-- Looking for new jobs.
DELETE FROM procrastinate.procrastinate_jobs;
CREATE TEMPORARY TABLE doors (name text, arguments text[], result text);
INSERT INTO doors VALUES ('queue_wake', '{}', 'boolean'), ('queue_sleep', '{}', 'void'), ('queue_announce', '{jsonb}', 'jsonb');
SELECT function_returns('worker', name, arguments, result, format('%s() is %s', name, result)) FROM doors;
SELECT volatility_is('worker', name, arguments, 'volatile', format('%s() is VOLATILE', name)) FROM doors;
SELECT is_definer('worker', name, arguments, format('%s() has its owner''s rights', name)) FROM doors;
SELECT function_privs_are('worker', name, arguments, 'backend_worker', ARRAY['EXECUTE'], format('backend_worker may execute %s()', name)) FROM doors;
SELECT function_privs_are('worker', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM doors, unnest(ARRAY['backend_api', 'backend_push']) AS r;

CREATE FUNCTION pg_temp.announced(p_seen jsonb DEFAULT '{}') RETURNS text LANGUAGE sql
RETURN (SELECT coalesce(string_agg(concat_ws(' ', w.key, w.value ->> 1), ', ' ORDER BY w.key), 'none') FROM jsonb_each(worker.queue_announce(p_seen)) AS w);
SELECT is(pg_temp.announced(), 'none', 'no queue has a job that waits');
SELECT backend.job_defer('one', 'a'), backend.job_defer('one', 'b'), backend.job_defer('two', 'a') \g /dev/null
SELECT pg_temp.job('of-alive', 'alive') \g /dev/null
SELECT is(pg_temp.announced(), 'one 2, two 1', 'each queue has its number; what is done already does not wait');
SELECT worker.queue_announce('{}') AS seen \gset
SELECT is(:'seen'::jsonb -> 'two' -> 0, (SELECT to_jsonb(max(id)) FROM procrastinate.procrastinate_jobs WHERE queue_name = 'two'), 'and its newest job');
SELECT is(worker.queue_announce(:'seen'), :'seen'::jsonb, 'seen once more it is the same');
SELECT is(worker.queue_announce(NULL), :'seen'::jsonb, 'seen for the first time too');
SELECT is(worker.queue_wake(), true, 'one becomes awake');
SELECT is((SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND mode = 'ExclusiveLock'), 1::bigint, 'and says so with a lock');
SELECT lives_ok('SELECT worker.queue_sleep()', 'it sleeps again');
SELECT is((SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), 0::bigint, 'and gives the lock back');

SELECT * FROM finish();
ROLLBACK;
