-- Test galaxy-backend:worker/metrics

BEGIN;
SELECT plan(10);
\ir ../helpers.psql

-- Attributes and privileges.
SELECT function_returns('worker', 'metrics_read', ARRAY['integer'], 'setof record', 'figures are rows');
SELECT volatility_is('worker', 'metrics_read', ARRAY['integer'], 'volatile', 'metrics_read() is VOLATILE: it adds up');
SELECT is_definer('worker', 'metrics_read', ARRAY['integer'], 'it has its owner''s rights');
SELECT function_privs_are('worker', 'metrics_read', ARRAY['integer'], 'backend_worker', ARRAY['EXECUTE'], 'backend_worker may execute it');
SELECT function_privs_are('worker', 'metrics_read', ARRAY['integer'], r, '{}'::name[], format('%s may not execute it', r))
  FROM unnest(ARRAY['backend_api', 'backend_push']) AS r;

SELECT set_config('search_path', current_setting('search_path') || ', procrastinate', true) \g /dev/null
SELECT backend.mail_enqueue('game.started', n::text, ARRAY['ann@example.org'], '{"game_id": "0197f3a2-5b1c-7d20-9e46-3f1a2b4c5d6e", "game_name": "x"}') FROM generate_series(1, 4) AS n \g /dev/null
DELETE FROM procrastinate.procrastinate_jobs;
SELECT backend.job_defer(q, 'x') FROM unnest(ARRAY['mail', 'mail', 'runtime']) AS q \g /dev/null
SELECT backend.metric_count('x_total', '{"a": "1"}') \g /dev/null
SET LOCAL ROLE backend_worker;
SELECT bag_eq(
    'SELECT metric, labels, value FROM worker.metrics_read(1000)',
    $$VALUES ('x_total', '{"a": "1"}'::jsonb, 1::bigint), ('mail_outbox_depth', '{"state": "pending"}', 4), ('mail_outbox_depth', '{"state": "retrying"}', 0),
             ('mail_outbox_depth', '{"state": "dead_lettered"}', 0), ('jobs_queued', '{"queue": "mail"}', 2), ('jobs_queued', '{"queue": "runtime"}', 1)$$,
    'what was counted, what is in the outbox, what is in the queues');
SELECT results_eq(
    $$SELECT value FROM worker.metrics_read(3) WHERE labels ->> 'state' = 'pending'$$, $$VALUES (3::bigint)$$, 'a large backlog is counted to the bound');
SELECT is((SELECT sum(value) FROM worker.metrics_read(2) WHERE metric = 'jobs_queued'), 2::numeric, 'jobs likewise');
SELECT is((SELECT value FROM worker.metrics_read(1000) WHERE metric = 'x_total'), 1::bigint, 'a counter does not go back');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
