-- Test galaxy-backend:push/stream

BEGIN;
SELECT plan(103);
\ir ../helpers.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], result text, volatility text);
INSERT INTO functions VALUES
    ('sequencer_wake', '{}', 'boolean', 'volatile'), ('sequencer_sleep', '{}', 'void', 'volatile'), ('events_sequence', ARRAY['integer'], 'setof record', 'volatile'),
    ('events_read', ARRAY['bigint', 'integer'], 'setof record', 'stable'), ('cursor_resume', ARRAY['text'], 'record', 'stable'),
    ('subscriber_claim', ARRAY['text', 'uuid', 'uuid'], 'bigint', 'volatile'), ('subscriber_release', ARRAY['text', 'uuid'], 'void', 'volatile'),
    ('subscribers_newest', ARRAY['text[]'], 'setof record', 'stable'), ('streamer_beat', '{}', 'void', 'volatile');
SELECT function_returns('push', name, arguments, result, format('%s() is %s', name, result)) FROM functions;
SELECT volatility_is('push', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('push', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('push', name, arguments, 'backend_push', ARRAY['EXECUTE'], format('backend_push may execute %s()', name)) FROM functions;
SELECT function_privs_are('push', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_api', 'backend_worker']) AS r;

-- The sequencer.
CREATE FUNCTION pg_temp.locks(p_key bigint) RETURNS bigint LANGUAGE sql
RETURN (SELECT count(*) FROM pg_locks AS l
         WHERE l.locktype = 'advisory' AND l.pid = pg_backend_pid() AND l.mode = 'ExclusiveLock' AND l.granted
           AND (l.classid::bigint << 32 | l.objid::bigint) = p_key);
SELECT backend.push_awake_key() AS awake_key, backend.push_sequencer_key() AS sequencer_key \gset
SET LOCAL ROLE backend_push;
SELECT is(push.sequencer_wake(), true, 'a streamer becomes the awake sequencer');
SELECT is(pg_temp.locks(:awake_key), 1::bigint, 'which a lock says');
SELECT lives_ok('SELECT push.sequencer_sleep()', 'it goes to sleep');
SELECT is(pg_temp.locks(:awake_key), 0::bigint, 'and no lock is left');

-- Sequencing.
SELECT is(
    (SELECT proconfig[2:] FROM pg_proc WHERE oid = 'push.events_sequence(integer)'::regprocedure),
    '{enable_seqscan=off,enable_bitmapscan=off,plan_cache_mode=force_generic_plan,jit=off}'::text[],
    'what is pending is found by the indexes, whatever statistics say');
SELECT is((SELECT count(*) FROM push.events_sequence(10)), 0::bigint, 'where nothing is pending nothing is moved');
SELECT is(pg_temp.locks(:sequencer_key), 1::bigint, 'whoever moves events holds a lock to the end of the transaction');
RESET ROLE;
SELECT gen_random_uuid() AS ann, gen_random_uuid() AS phone, e.epoch FROM backend.push_epoch AS e \gset
SELECT set_config('backend.traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', true) \gset ignored_
SELECT backend.push_client_event(:'ann', :'phone', 'kind-' || i, jsonb_build_object('n', i), gen_random_uuid(), 'intent-' || i) FROM generate_series(1, 4) AS i \g /dev/null
SELECT backend.push_session_invalidation(:'ann', NULL, 'logout') \g /dev/null
SELECT event_id AS third FROM backend.push_pending WHERE kind = 'kind-3' \gset
UPDATE backend.clock SET clock_offset = '1 second';
SET LOCAL ROLE backend_push;
SELECT is((SELECT count(*) FROM push.events_sequence(3)), 3::bigint, 'no more are moved than are asked for');
RESET ROLE;
SELECT results_eq(
    'SELECT position, kind, created_at, sequenced_at FROM backend.push_events ORDER BY position',
    $$SELECT i, 'kind-' || i, transaction_timestamp(), transaction_timestamp() + interval '1 second' FROM generate_series(1::bigint, 3) AS i$$,
    'the oldest first, with the time of their cause and that of their place');
SELECT results_eq(
    'SELECT user_id, device_session_id, payload, reason, request_id, trace_id, span_id FROM backend.push_events WHERE event_id = ' || quote_literal(:'third'),
    format($$VALUES (%L::uuid, %L::uuid, '{"n": 3}'::jsonb, NULL::text, 'intent-3', '0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331')$$, :'ann', :'phone'),
    'and all that they are');
SELECT is(backend.push_head(), 3::bigint, 'the head follows');
SELECT is((SELECT count(*) FROM backend.push_pending), 2::bigint, 'what is not moved stays');
SET LOCAL ROLE backend_push;
SELECT is((SELECT count(*) FROM push.events_sequence(10)), 2::bigint, 'the next call goes on');
SELECT is((SELECT count(*) FROM push.events_sequence(10)), 0::bigint, 'to the end');
RESET ROLE;
-- As rows lie where space is free, the order of what is read is not that of what was written.
SAVEPOINT before;
SELECT backend.push_session_invalidation(:'ann', :'phone', 'other') \g /dev/null
CREATE TEMPORARY TABLE told AS SELECT * FROM push.events_sequence(10);
SELECT results_eq('SELECT * FROM told', 'SELECT * FROM push.events_read(5, 10)', 'what has its place now is told as it is read');
ROLLBACK TO before;
INSERT INTO backend.push_pending (pending_id, event_id, user_id, reason, writer) OVERRIDING SYSTEM VALUE
SELECT (SELECT last_value FROM backend.push_pending_pending_id_seq) + i, gen_random_uuid(), :'ann', 'reason-' || i, pg_current_xact_id() FROM unnest(ARRAY[3, 1, 2]) AS i;
SELECT FROM push.events_sequence(10) \g /dev/null
SELECT results_eq(
    'SELECT position, reason FROM backend.push_events WHERE position > 5 ORDER BY position',
    $$VALUES (6::bigint, 'reason-1'), (7, 'reason-2'), (8, 'reason-3')$$, 'places are given in the order of writing');
CREATE TEMPORARY TABLE moved AS SELECT * FROM backend.push_events;
DELETE FROM backend.push_events;
INSERT INTO backend.push_events SELECT * FROM moved ORDER BY position DESC;
SELECT results_eq(
    'SELECT position FROM push.events_read(5, 10)', ARRAY[6, 7, 8]::bigint[], 'and read in the order of places');
ROLLBACK TO before;
SET LOCAL ROLE backend_push;

-- What a session knows it need not look at again.
SELECT isnt(current_setting('backend.push_known'), '', 'a session that has left nothing knows since when');
SELECT set_config('backend.push_known', '', false) \g /dev/null
SELECT is((SELECT count(*) FROM push.events_sequence(10)), 0::bigint, 'one that knows nothing looks at all');

-- Reading.
SELECT results_eq(
    'SELECT position, cursor, kind, reason FROM push.events_read(2, 2)',
    format($$VALUES (3::bigint, lpad('%s', 19, '0') || '-0000000000000000003', 'kind-3', NULL),
                    (4, lpad('%1$s', 19, '0') || '-0000000000000000004', 'kind-4', NULL)$$, :'epoch'),
    'events are read after a position, at most so many, in order');
SELECT results_eq(
    'SELECT event_id, user_id, device_session_id, payload, request_id, trace_id, span_id, created_at FROM push.events_read(2, 1)',
    format($$VALUES (%L, %L, %L, '{"n": 3}', 'intent-3', '0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331', extract(epoch FROM transaction_timestamp())::float8)$$,
           :'third', :'ann', :'phone'), 'with all that a gateway gets');
SELECT results_eq(
    'SELECT kind, payload, reason, device_session_id FROM push.events_read(4, 10)',
    $$VALUES (NULL, NULL, 'logout', '')$$, 'an invalidation has its place among them');
SELECT is_empty('SELECT FROM push.events_read(5, 10)', 'after the last there is none');

-- Resuming.
RESET ROLE;
UPDATE backend.push_epoch SET purged_through = 2, epoch = 1700000000;
DELETE FROM backend.push_events WHERE position <= 2;
UPDATE backend.push_events SET position = 9 WHERE position = 5;
SET LOCAL ROLE backend_push;
SELECT results_eq(
    format('SELECT resume_position, resume_cursor, is_exact, is_ahead FROM push.cursor_resume(%L)', c),
    format('VALUES (%s::bigint, ''0000000001700000000-000000000000000000%1$s'', %L::boolean, %L::boolean)', p, e, a), d)
  FROM (VALUES
    ('0000000001700000000-0000000000000000004', 4, true, false, 'a cursor is gone on after exactly'),
    ('0000000001700000000-0000000000000000002', 2, true, false, 'if nothing after it was deleted'),
    ('0000000001700000000-0000000000000000001', 9, false, false, 'otherwise from now: never a part'),
    ('0000000001700000000-0000000000000000009', 9, true, false, 'the head can be gone on after'),
    ('0000000001700000000-0000000000000000010', 9, false, true, 'a cursor that was never given starts fresh, and is told apart'),
    ('0000000001700000000-9999999999999999999', 9, false, true, 'however far ahead'),
    ('0000000001699999999-0000000000000000004', 9, false, false, 'a cursor of another epoch starts fresh'),
    ('', 9, false, false, 'no cursor starts fresh'),
    (NULL, 9, false, false, 'nor does null fail'),
    ('1700000000-4', 9, false, false, 'a cursor that is not padded is not ours'),
    ('0000000001700000000-000000000000000004x', 9, false, false, 'what is not ours starts fresh'),
    ('0000000001700000000-0000000000000000004' || E'\n', 9, false, false, 'not even a line break is ours'),
    (repeat('9', 100000), 9, false, false, 'however long')
  ) AS t(c, p, e, a, d);

-- Replacing.
SELECT gen_random_uuid() AS c1, gen_random_uuid() AS c2, gen_random_uuid() AS s1, gen_random_uuid() AS s2 \gset
SELECT push.subscriber_claim('gateway-1', :'c1', :'s1') AS first \gset
SELECT results_eq(
    $$SELECT connection_id, gateway_client_id, claim FROM push.subscribers_newest('{gateway-1,gateway-2}')$$,
    format($$VALUES (%L::uuid, 'gateway-1', %s::bigint)$$, :'c1', :'first'), 'a stream is its client''s newest; a client without one has none');
RESET ROLE;
UPDATE backend.clock SET clock_offset = '1 hour';
SET LOCAL ROLE backend_push;
SELECT push.subscriber_claim('gateway-1', :'c2', :'s2') AS second \gset
SELECT cmp_ok(:second::bigint, '>', :first::bigint, 'until the client comes again, elsewhere too: claims grow');
SELECT results_eq(
    $$SELECT connection_id, gateway_client_id, claim FROM push.subscribers_newest('{gateway-1,gateway-2}')$$,
    format($$VALUES (%L::uuid, 'gateway-1', %s::bigint)$$, :'c2', :'second'), 'then that one is');
RESET ROLE;
SELECT results_eq(
    'SELECT streamer_id, connected_at FROM backend.push_subscribers', format('VALUES (%L::uuid, backend.now())', :'s2'), 'and is where it is, since when it is');
SET LOCAL ROLE backend_push;
SELECT push.subscriber_claim('gateway-2', gen_random_uuid(), :'s2') \g /dev/null
SELECT is((SELECT count(*) FROM push.subscribers_newest('{gateway-1,gateway-2}')), 2::bigint, 'another client''s is another''s');
SELECT is((SELECT count(*) FROM push.subscribers_newest('{gateway-2}')), 1::bigint, 'of which only those are told who are asked for');
SELECT push.subscriber_release('gateway-1', :'c1') \g /dev/null
SELECT is((SELECT count(*) FROM push.subscribers_newest('{gateway-1,gateway-2}')), 2::bigint, 'a stream that was replaced takes nothing with it when it ends');
SELECT push.subscriber_release('gateway-1', :'c2') \g /dev/null
SELECT is((SELECT count(*) FROM push.subscribers_newest('{gateway-1,gateway-2}')), 1::bigint, 'the newest one does');
SELECT is(
    pg_temp.violated(format('SELECT push.subscriber_claim(%L, gen_random_uuid(), gen_random_uuid())', i)),
    'push_subscribers_client_id_has_1_to_128_characters', d)
  FROM (VALUES ('', 'an empty id is refused'), (repeat('x', 129), 'an over-long id is refused')) AS t(i, d);
RESET ROLE;

-- What streamers are heard of by.
SELECT is((SELECT seen_at FROM backend.push_heartbeat), '-infinity'::timestamptz, 'no streamer was heard of');
SET LOCAL ROLE backend_push;
SELECT lives_ok('SELECT push.streamer_beat()', 'one serves');
RESET ROLE;
SELECT is((SELECT seen_at FROM backend.push_heartbeat), backend.now(), 'and was heard of now');

SELECT * FROM finish();
ROLLBACK;
