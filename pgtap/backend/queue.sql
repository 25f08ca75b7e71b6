-- Test galaxy-backend:backend/queue_base and galaxy-backend:backend/queue

BEGIN;
SELECT plan(32);

-- Attributes: the tables are the package's own; what we and it call must be there.
SELECT tables_are('procrastinate',
    ARRAY['procrastinate_jobs', 'procrastinate_events', 'procrastinate_periodic_defers', 'procrastinate_workers'],
    'the queue has the tables of Procrastinate 3');
SELECT columns_are('procrastinate', 'procrastinate_jobs',
    ARRAY['id', 'queue_name', 'task_name', 'lock', 'args', 'status', 'scheduled_at', 'attempts', 'queueing_lock', 'priority',
          'abort_requested', 'worker_id'], 'a job has the columns of 3.10');
SELECT has_function('procrastinate', f, format('there is %s()', f))
  FROM unnest(ARRAY['procrastinate_defer_jobs_v1', 'procrastinate_defer_periodic_job_v2', 'procrastinate_fetch_job_v2',
                    'procrastinate_finish_job_v1', 'procrastinate_cancel_job_v1', 'procrastinate_retry_job_v2',
                    'procrastinate_register_worker_v1', 'procrastinate_unregister_worker_v1', 'procrastinate_update_heartbeat_v1',
                    'procrastinate_prune_stalled_workers_v1']) AS f;
SELECT is_empty(
    $$SELECT indexrelid::regclass FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
       WHERE c.relnamespace = 'procrastinate'::regnamespace AND NOT i.indisvalid$$, 'its indexes are whole');

-- Privileges.
SELECT table_privs_are('procrastinate', t, 'backend_worker', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
    format('backend_worker reads and writes %s', t))
  FROM unnest(ARRAY['procrastinate_jobs', 'procrastinate_events', 'procrastinate_periodic_defers', 'procrastinate_workers']) AS t;
SELECT table_privs_are('procrastinate', 'procrastinate_jobs', r, '{}'::name[], format('%s has no right on jobs', r))
  FROM unnest(ARRAY['backend_api', 'backend_push']) AS r;
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM procrastinate.procrastinate_jobs', '42501', NULL, 'backend_api does not see the jobs');
SELECT throws_ok($$SELECT procrastinate.procrastinate_defer_jobs_v1('{}')$$, '42501', NULL,
    'backend_api defers no job that is not the effect of what it may do');
RESET ROLE;

-- A job's life, as the worker's login lives it.
SET LOCAL SESSION AUTHORIZATION galaxy_worker;
SET LOCAL search_path = procrastinate, pgtap;
SELECT worker_id FROM procrastinate_register_worker_v1() \gset
SELECT is(
    cardinality(procrastinate_defer_jobs_v1(ARRAY[
        ROW('test', 'first', 0, 'game-1', NULL, '{"n": 1}', NULL), ROW('test', 'second', 10, 'game-1', NULL, '{}', NULL),
        ROW('test', 'third', 0, NULL, NULL, '{}', NULL)]::procrastinate_job_to_defer_v1[])),
    3, 'several jobs are deferred at once');
SELECT id AS job_id, task_name FROM procrastinate_fetch_job_v2(ARRAY['test'], :worker_id) \gset
SELECT is(:'task_name'::text, 'second', 'of jobs with one lock the one of higher priority comes first');
SELECT is(
    (SELECT task_name::text FROM procrastinate_fetch_job_v2(ARRAY['test'], :worker_id)), 'third', 'a lock that is held holds up no other job');
SELECT is((SELECT task_name::text FROM procrastinate_fetch_job_v2(ARRAY['test'], :worker_id)), NULL, 'but the next one of its lock');
SELECT lives_ok(format($$SELECT procrastinate_finish_job_v1(%s, 'succeeded', false)$$, :job_id), 'the worker finishes it');
SELECT is((SELECT task_name::text FROM procrastinate_fetch_job_v2(ARRAY['test'], :worker_id)), 'first', 'and then the next one comes');
SELECT lives_ok(format('SELECT procrastinate_update_heartbeat_v1(%s)', :worker_id), 'the worker''s heart beats');
SELECT lives_ok('SELECT procrastinate_prune_stalled_workers_v1(3600)', 'workers that died are found');
SELECT lives_ok(
    $$SELECT procrastinate_defer_periodic_job_v2('test', NULL, NULL, 'periodic', 0, 'id', 1, '{}')$$, 'a periodic job is deferred');
SELECT isnt_empty('SELECT FROM procrastinate_events', 'the events of jobs are written by their triggers');
SELECT lives_ok($$DELETE FROM procrastinate_jobs WHERE status = 'succeeded'$$, 'finished jobs are deleted');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
