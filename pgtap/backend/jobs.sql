-- Test galaxy-backend:backend/jobs

BEGIN;
SELECT plan(26);
\ir ../helpers.psql

-- Attributes.
SELECT function_returns('backend', 'job_defer', ARRAY['text', 'text', 'jsonb', 'text', 'integer'], 'bigint', 'a job has a number');
SELECT volatility_is('backend', 'job_defer', ARRAY['text', 'text', 'jsonb', 'text', 'integer'], 'volatile', 'deferring writes');
SELECT isnt_definer('backend', 'job_defer', ARRAY['text', 'text', 'jsonb', 'text', 'integer'], 'it has no rights of its own');
SELECT is(
    (SELECT proconfig FROM pg_proc WHERE oid = 'backend.job_defer'::regproc),
    ARRAY['search_path=backend, procrastinate, pg_catalog, pg_temp'], 'it sees the queue, whose functions use unqualified names');
SELECT function_returns('backend', f, '{}'::name[], 'text', format('backend.%s() is text', f)) FROM unnest(ARRAY['request_id', 'traceparent', 'trace_span_id']) AS f;
SELECT volatility_is('backend', f, '{}'::name[], 'stable', format('backend.%s() is STABLE', f)) FROM unnest(ARRAY['request_id', 'traceparent', 'trace_span_id']) AS f;
SET LOCAL ROLE backend_worker;
SELECT throws_ok($$SELECT backend.job_defer('a', 'b')$$, '42501', NULL, 'backend_worker cannot call it: it has the queue itself');
RESET ROLE;

-- The context of whoever asked.
SELECT is(backend.request_id(), NULL, 'without a request there is no id');
SELECT set_config('backend.request_id', '', true) \gset ignored_
SELECT is(backend.request_id(), NULL, 'an empty id is none');
SELECT set_config('backend.request_id', 'request-1', true) \gset ignored_
SELECT is(backend.request_id(), 'request-1', 'the id of the request is that of the connection''s setting');
SELECT is(backend.traceparent(), NULL, 'without a trace there is none');
SELECT backend.job_defer('mail', 'mail_deliver') AS plain \gset
SELECT set_config('backend.traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', true) \gset ignored_
SELECT backend.job_defer('runtime', 'game_start', '{"game_id": 7}', 'game-7', 5) AS full \gset
SELECT is(backend.trace_span_id(), 'b7ad6b7169203331', 'the span of a trace that is recorded');
SELECT set_config('backend.traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00', true) \gset ignored_
SELECT is(backend.trace_span_id(), NULL, 'none of one that is not');

-- What is in the queue then.
SELECT results_eq(
    format($$SELECT queue_name::text, task_name::text, lock, priority, args, status::text, queueing_lock, scheduled_at
               FROM procrastinate.procrastinate_jobs WHERE id = %s$$, :plain),
    $$VALUES ('mail', 'mail_deliver', NULL::text, 0, '{"context": {"request_id": "request-1"}}'::jsonb, 'todo', NULL::text, NULL::timestamptz)$$,
    'a job is deferred at once, with no lock, with the context there is');
SELECT results_eq(
    format($$SELECT queue_name::text, task_name::text, lock, priority, args FROM procrastinate.procrastinate_jobs WHERE id = %s$$, :full),
    $$VALUES ('runtime', 'game_start', 'game-7', 5,
              '{"game_id": 7, "context": {"request_id": "request-1", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}'::jsonb)$$,
    'a job has its lock, priority and arguments, and the trace that it goes on');
SELECT backend.job_defer('a', 'b', '{"context": {"request_id": "forged"}}') AS forged \gset
SELECT is(
    (SELECT args -> 'context' ->> 'request_id' FROM procrastinate.procrastinate_jobs WHERE id = :forged),
    'request-1', 'nobody''s arguments replace the context');
SELECT cmp_ok(:full, '>', :plain::integer, 'numbers rise');
SAVEPOINT before;
SELECT backend.job_defer('a', 'rolled_back') AS gone \gset
ROLLBACK TO before;
SELECT is_empty(
    $$SELECT FROM procrastinate.procrastinate_jobs WHERE task_name = 'rolled_back'$$, 'what is rolled back leaves no job');
SELECT throws_ok($$SELECT backend.job_defer(NULL, 'b')$$, '23502', NULL, 'a job has a queue');
SELECT throws_ok($$SELECT backend.job_defer('a', NULL)$$, '23502', NULL, 'a job has a task');

SELECT is_empty(
    $$SELECT n, w FROM generate_series(1, 12) AS n, LATERAL (SELECT extract(epoch FROM backend.retry_after(n)) AS w) AS t
       WHERE w NOT BETWEEN least(3600, 5 * 4 ^ (n - 1)) / 2 AND least(3600, 5 * 4 ^ (n - 1))$$,
    'what failed waits four times as long each time, to an hour, less up to a half');
SELECT cmp_ok((SELECT count(DISTINCT backend.retry_after(3)) FROM generate_series(1, 20)), '>', 10::bigint, 'of which chance decides');

SELECT * FROM finish();
ROLLBACK;
