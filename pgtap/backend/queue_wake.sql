-- Test galaxy-backend:backend/queue_wake

BEGIN;
SELECT plan(19);
\ir ../helpers.psql

-- Attributes.
SELECT function_returns('backend', 'is_asleep', ARRAY['bigint'], 'boolean', 'whether anybody is to be woken');
SELECT function_returns('backend', 'job_defer_once', ARRAY['text', 'text', 'integer'], 'void', 'a job that does whatever waits has no number to keep');
SELECT function_returns('backend', 'queue_awake_key', '{}'::name[], 'bigint', 'the key is an advisory lock''s');
SELECT function_returns('backend', 'tg_procrastinate_jobs__wake', '{}'::name[], 'trigger', 'a trigger wakes');
SELECT isnt_definer('backend', f, a, format('%s() has no rights of its own', f))
  FROM (VALUES ('is_asleep', ARRAY['bigint']), ('job_defer_once', ARRAY['text', 'text', 'integer'])) AS t(f, a);
SELECT is_definer('backend', 'tg_procrastinate_jobs__wake', '{}'::name[], 'who defers a job needs no right on what wakes');
SELECT volatility_is('backend', 'queue_awake_key', '{}'::name[], 'immutable', 'the key is one');
SELECT isnt(backend.queue_awake_key(), backend.push_awake_key(), 'and not that of the stream');
SELECT isnt(backend.queue_awake_key(), backend.push_sequencer_key(), 'nor that of its places');

-- The triggers.
SELECT trigger_is('procrastinate', 'procrastinate_jobs', 'wake', 'backend', 'tg_procrastinate_jobs__wake', 'a job wakes a worker');
SELECT set_eq(
    $$SELECT t.tgname::text, t.tgenabled::text FROM pg_trigger AS t
       WHERE t.tgrelid = 'procrastinate.procrastinate_jobs'::regclass AND (t.tgname ~ 'notify' OR t.tgname = 'wake')$$,
    $$VALUES ('procrastinate_jobs_notify_queue_job_aborted_v1', 'O'), ('procrastinate_jobs_notify_queue_job_inserted_v1', 'D'), ('wake', 'O')$$,
    'and nothing else notifies for each job; whoever aborts one still does');

-- One job for a transaction.
CREATE FUNCTION pg_temp.jobs() RETURNS text LANGUAGE sql
RETURN (SELECT coalesce(string_agg(concat_ws(' ', j.queue_name, j.task_name, j.priority), ', ' ORDER BY j.id), 'none')
          FROM procrastinate.procrastinate_jobs AS j WHERE j.queue_name = 'tap');
SELECT backend.job_defer_once('tap', 'a') \g /dev/null
SELECT backend.job_defer_once('tap', 'a') \g /dev/null
SELECT is(pg_temp.jobs(), 'tap a 0', 'a transaction defers such a job once');
SELECT backend.job_defer_once('tap', 'b') \g /dev/null
SELECT is(pg_temp.jobs(), 'tap a 0, tap b 0', 'once of each task');
SELECT backend.job_defer_once('tap', 'a', 5) \g /dev/null
SELECT backend.job_defer_once('tap', 'a', 4) \g /dev/null
SELECT is(pg_temp.jobs(), 'tap a 0, tap b 0, tap a 5', 'and again for what is more urgent');
SAVEPOINT before;
SELECT backend.job_defer_once('tap', 'c') \g /dev/null
ROLLBACK TO before;
SELECT is(pg_temp.jobs(), 'tap a 0, tap b 0, tap a 5', 'what is undone leaves no job');
SELECT backend.job_defer_once('tap', 'c') \g /dev/null
SELECT is(pg_temp.jobs(), 'tap a 0, tap b 0, tap a 5, tap c 0', 'nor a trace that would keep the next one away');
SELECT backend.job_defer('tap', 'a') \g /dev/null
SELECT is(pg_temp.jobs(), 'tap a 0, tap b 0, tap a 5, tap c 0, tap a 0', 'a job that is about something is deferred each time');
SELECT is_empty(
    $$SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()$$, 'who defers does not keep the lock of whom they wake');

SELECT * FROM finish();
ROLLBACK;
