-- Test galaxy-backend:worker/maintenance

BEGIN;
SELECT plan(65);

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], result text, volatility text);
INSERT INTO functions VALUES
    ('challenges_purge', ARRAY['integer'], 'integer', 'volatile'), ('push_events_purge', ARRAY['integer'], 'integer', 'volatile'),
    ('auth_budgets_purge', ARRAY['integer'], 'integer', 'volatile'), ('admin_attempts_purge', ARRAY['integer'], 'integer', 'volatile'),
    ('idempotency_keys_purge', ARRAY['integer'], 'integer', 'volatile'),
    ('invariants_list', '{}', 'setof record', 'stable');
SELECT function_returns('worker', name, arguments, result, format('%s() is %s', name, result)) FROM functions;
SELECT volatility_is('worker', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('worker', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('worker', name, arguments, 'backend_worker', ARRAY['EXECUTE'], format('backend_worker may execute %s()', name)) FROM functions;
SELECT function_privs_are('worker', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_api', 'backend_push']) AS r;

-- Challenges: a day after they expired.
INSERT INTO backend.auth_challenges (email, source_hash, code_hash, created_at, expires_at)
SELECT 'a@example.org', sha256(''), sha256(''), backend.now() - interval '2 days', backend.now() - interval '1 day' - make_interval(secs => i) FROM generate_series(0, 4) AS i;
INSERT INTO backend.auth_challenges (email, source_hash, code_hash, expires_at) VALUES ('live@example.org', sha256(''), sha256(''), backend.now() + interval '1 minute');
SET LOCAL ROLE backend_worker;
SELECT is(worker.challenges_purge(3), 3, 'no more challenges are deleted than are asked for');
SELECT is(worker.challenges_purge(3), 1, 'then the rest of them');
SELECT is(worker.challenges_purge(3), 0, 'and then none');
RESET ROLE;
SELECT results_eq(
    'SELECT email, backend.now() - expires_at FROM backend.auth_challenges ORDER BY expires_at',
    $$VALUES ('a@example.org', interval '1 day'), ('live@example.org', interval '-1 minute')$$, 'one that expired just a day ago is kept, and a live one anyway');
UPDATE backend.clock SET clock_offset = '1 microsecond';
SELECT is(worker.challenges_purge(100), 1, 'until a moment later');
UPDATE backend.clock SET clock_offset = '0';

-- Budgets and wrong passwords: when they are over.
INSERT INTO backend.auth_budgets (budget, key_hash, spent, window_started_at, expires_at)
SELECT 'code_mails_per_network', sha256(i::text::bytea), 1, backend.now() - interval '1 day', backend.now() - make_interval(secs => i) FROM generate_series(-1, 3) AS i;
INSERT INTO backend.admin_attempts (key_hash, expires_at) SELECT key_hash, expires_at FROM backend.auth_budgets;
SET LOCAL ROLE backend_worker;
SELECT is(worker.auth_budgets_purge(3), 3, 'no more budgets are deleted than are asked for');
SELECT is(worker.auth_budgets_purge(3), 1, 'then the rest of them');
SELECT is(worker.admin_attempts_purge(3), 3, 'nor are more counts of wrong passwords');
SELECT is(worker.admin_attempts_purge(3), 1, 'and then theirs');
RESET ROLE;
SELECT results_eq('SELECT expires_at - backend.now() FROM backend.auth_budgets', $$VALUES (interval '1 second')$$, 'a budget that still counts is kept');
SELECT results_eq('SELECT expires_at - backend.now() FROM backend.admin_attempts', $$VALUES (interval '1 second')$$, 'and so are wrong passwords');

-- Answers under keys: when they are a day old.
INSERT INTO backend.idempotency_keys (caller, operation, request_key, request_hash, status, created_at)
SELECT 'a', 'b', i::text, sha256(''), 201, backend.now() - interval '1 day' + make_interval(secs => i) FROM generate_series(-3, 1) AS i;
SET LOCAL ROLE backend_worker;
SELECT is(worker.idempotency_keys_purge(3), 3, 'no more answers are deleted than are asked for');
SELECT is(worker.idempotency_keys_purge(3), 1, 'then the rest of them');
SELECT is(worker.idempotency_keys_purge(3), 0, 'and then none');
RESET ROLE;
SELECT set_eq('SELECT request_key FROM backend.idempotency_keys', ARRAY['1'], 'what is not a day old is kept');

-- Push events: the window and a minute after they got their place, the oldest first, without a hole.
SELECT is(worker.push_events_purge(100), 0, 'of an empty stream nothing is deleted');
INSERT INTO backend.push_events (position, event_id, user_id, reason, created_at, sequenced_at)
SELECT i, gen_random_uuid(), gen_random_uuid(), 'logout', backend.now(), backend.now() - interval '6 minutes' FROM generate_series(1, 4) AS i;
INSERT INTO backend.push_events (position, event_id, user_id, reason, created_at, sequenced_at)
VALUES (5, gen_random_uuid(), gen_random_uuid(), 'logout', backend.now() - interval '1 day', backend.now() - interval '6 minutes' + interval '1 microsecond'),
       (6, gen_random_uuid(), gen_random_uuid(), 'logout', backend.now(), backend.now() - interval '1 hour');
SET LOCAL ROLE backend_worker;
SELECT is(worker.push_events_purge(3), 3, 'no more events are deleted than are asked for');
RESET ROLE;
SELECT is((SELECT purged_through FROM backend.push_epoch), 3::bigint, 'how far is written down');
SELECT is(worker.push_events_purge(3), 1, 'then the rest');
SELECT is(worker.push_events_purge(3), 0, 'and then none');
SELECT set_eq('SELECT position FROM backend.push_events', ARRAY[5, 6]::bigint[], 'what is wanted is kept, and all that comes after it, however old');
SELECT is((SELECT purged_through FROM backend.push_epoch), 4::bigint, 'nothing is called deleted that is not');
SELECT is_empty('SELECT * FROM backend.invariants_push', 'the stream has no hole');
SET LOCAL backend.freshness_window = '600';
UPDATE backend.clock SET clock_offset = '4 minutes 59.9 seconds';
SELECT is(worker.push_events_purge(100), 0, 'the window is a setting');
UPDATE backend.clock SET clock_offset = '5 minutes 1 second';
SELECT is(worker.push_events_purge(100), 2, 'to its end');
RESET backend.freshness_window;
SELECT is((SELECT purged_through FROM backend.push_epoch), 6::bigint, 'nothing is left, and that is known');
SELECT is(backend.push_head(), 6::bigint, 'places go on after it');

-- Invariants.
SET LOCAL ROLE backend_worker;
SELECT is_empty('SELECT * FROM worker.invariants_list()', 'nothing is wrong');
RESET ROLE;
UPDATE backend.push_epoch SET purged_through = 1;
INSERT INTO backend.push_events (position, event_id, user_id, reason, created_at) VALUES (1, gen_random_uuid(), gen_random_uuid(), 'logout', now());
SET LOCAL ROLE backend_worker;
SELECT results_eq(
    'SELECT invariant, object_id FROM worker.invariants_list()', $$VALUES ('push_event_outlived_its_purge', '1')$$, 'what is wrong is listed');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
