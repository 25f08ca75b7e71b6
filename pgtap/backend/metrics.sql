-- Test galaxy-backend:backend/metrics

BEGIN;
SELECT plan(14);
\ir ../helpers.psql

-- Attributes and privileges.
SELECT has_table('backend', t, format('there is %s', t)) FROM unnest(ARRAY['metric_changes', 'metric_totals']) AS t;
SELECT is((SELECT relpersistence::text FROM pg_class WHERE oid = 'backend.metric_changes'::regclass), 'u', 'changes are not worth a log');
SELECT col_is_pk('backend', 'metric_totals', ARRAY['metric', 'labels'], 'a counter has one total');
SELECT volatility_is('backend', f, 'volatile', format('%s() is VOLATILE', f)) FROM unnest(ARRAY['metric_count', 'metrics_add_up']) AS f;
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.metric_count('x', '{}')$$, '42501', NULL, 'backend_api counts nothing but by what it does');
RESET ROLE;

-- Each is counted once.
SELECT backend.metric_count('x_total', '{"a": "1"}') FROM generate_series(1, 3) \g /dev/null
SELECT backend.metric_count('x_total', '{"a": "2"}') \g /dev/null
SELECT is_empty('SELECT FROM backend.metric_totals', 'a change is not added up with its cause');
SELECT is(backend.metrics_add_up(2), 2, 'no more are added up than are asked for');
SELECT results_eq('SELECT metric, labels, total FROM backend.metric_totals', $$VALUES ('x_total', '{"a": "1"}'::jsonb, 2::bigint)$$, 'the oldest first');
SELECT is(backend.metrics_add_up(10), 2, 'then the rest');
SELECT results_eq('SELECT labels, total FROM backend.metric_totals ORDER BY labels',
    $$VALUES ('{"a": "1"}'::jsonb, 3::bigint), ('{"a": "2"}', 1)$$, 'each to its own');
SELECT is(backend.metrics_add_up(10), 0, 'and none twice');
SELECT is_empty('SELECT FROM backend.metric_changes', 'what was added up is gone');

SELECT * FROM finish();
ROLLBACK;
