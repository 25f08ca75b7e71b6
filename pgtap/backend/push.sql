-- Test galaxy-backend:backend/push

BEGIN;
SELECT plan(64);
\ir ../helpers.psql

-- Attributes.
SELECT has_table('backend', t, format('there is %s', t)) FROM unnest(ARRAY['push_pending', 'push_events', 'push_epoch', 'push_subscribers', 'push_heartbeat']) AS t;
SELECT col_is_pk('backend', 'push_pending', 'pending_id', 'pending events have an order of their own');
SELECT is(
    (SELECT attidentity::text FROM pg_attribute WHERE attrelid = 'backend.push_pending'::regclass AND attname = 'pending_id'), 'a',
    'which nobody else gives');
SELECT col_is_pk('backend', 'push_events', 'position', 'a position is given once');
SELECT col_not_null('backend', t, c, format('%s.%s is always told', t, c))
  FROM (VALUES ('push_pending', 'event_id'), ('push_pending', 'user_id'), ('push_events', 'event_id'), ('push_events', 'user_id'),
               ('push_pending', 'writer'), ('push_epoch', 'epoch'), ('push_epoch', 'purged_through'),
               ('push_events', 'sequenced_at'), ('push_subscribers', 'connection_id'), ('push_subscribers', 'streamer_id'),
               ('push_subscribers', 'claim'), ('push_subscribers', 'connected_at'), ('push_heartbeat', 'seen_at')) AS t(t, c);
SELECT is_empty(
    $$SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid IN ('backend.push_pending'::regclass, 'backend.push_events'::regclass)$$,
    'an event holds up nobody''s row');
SELECT has_index('backend', 'push_pending', 'push_pending_by_writer', ARRAY['writer'], 'what a transaction left is found by it');
SELECT volatility_is('backend', f, '{}'::name[], v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('push_awake_key', 'immutable'), ('push_sequencer_key', 'immutable')) AS t(f, v);
SELECT isnt(backend.push_awake_key(), backend.push_sequencer_key(), 'the two locks are two');

-- Privileges.
SET LOCAL ROLE backend_push;
SELECT throws_ok('SELECT FROM backend.push_events', '42501', NULL, 'backend_push reads the stream through its door only');
SELECT throws_ok('UPDATE backend.push_epoch SET purged_through = 0', '42501', NULL, 'backend_push cannot turn the stream back');
SELECT throws_ok('SELECT backend.push_epoch_begin()', '42501', NULL, 'nor begin an epoch');
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.push_session_invalidation(gen_random_uuid(), NULL, 'logout')$$, '42501', NULL,
    'backend_api sends no event that is not the effect of what it may do');
RESET ROLE;

-- Constraints.
SELECT is(
    pg_temp.violated(format('INSERT INTO backend.push_pending (event_id, user_id, writer, kind, payload, reason)
        VALUES (gen_random_uuid(), gen_random_uuid(), pg_current_xact_id(), %s)', v)),
    c, format('pending: %s', d))
  FROM (VALUES
    ($$'a', '{}', NULL$$, 'nothing', 'an event has a kind and a payload'),
    ($$NULL, NULL, 'logout'$$, 'nothing', 'an invalidation has a reason'),
    ($$'a', '{}', 'logout'$$, 'push_pending_is_event_or_invalidation', 'nothing is both'),
    ($$NULL, NULL, NULL$$, 'push_pending_is_event_or_invalidation', 'nothing is neither'),
    ($$'a', NULL, NULL$$, 'push_pending_is_event_or_invalidation', 'an event without a payload is none'),
    ($$NULL, '{}', 'logout'$$, 'push_pending_is_event_or_invalidation', 'an invalidation has no payload')
  ) AS t(v, c, d);
SELECT is(
    pg_temp.violated(format('INSERT INTO backend.push_events (position, event_id, user_id, kind, payload, reason, created_at)
        VALUES (%s, gen_random_uuid(), gen_random_uuid(), %s, now())', p, v)), c, format('stream: %s', d))
  FROM (VALUES
    (1, $$'a', '{}', NULL$$, 'nothing', 'an event has a kind and a payload'),
    (2, $$NULL, NULL, 'logout'$$, 'nothing', 'an invalidation has a reason'),
    (2, $$NULL, NULL, 'logout'$$, 'push_events_pkey', 'a position is given once'),
    (3, $$'a', '{}', 'logout'$$, 'push_events_is_event_or_invalidation', 'nothing is both'),
    (3, $$NULL, NULL, NULL$$, 'push_events_is_event_or_invalidation', 'nothing is neither')
  ) AS t(p, v, c, d);
DELETE FROM backend.push_events;
DELETE FROM backend.push_pending;
SELECT is(pg_temp.violated($$INSERT INTO backend.push_heartbeat DEFAULT VALUES$$), 'push_heartbeat_pkey', 'streamers are heard of in one place');
SELECT is(pg_temp.violated($$INSERT INTO backend.push_heartbeat (is_only) VALUES (false)$$), 'push_heartbeat_is_one_row', 'and no other');
SELECT is(pg_temp.violated($$INSERT INTO backend.push_epoch DEFAULT VALUES$$), 'push_epoch_pkey', 'there is one stream');
SELECT is(pg_temp.violated($$INSERT INTO backend.push_epoch (is_only) VALUES (false)$$), 'push_epoch_has_one_row', 'and no other');
SELECT is(
    pg_temp.violated(format('INSERT INTO backend.push_subscribers VALUES (%L, gen_random_uuid(), gen_random_uuid())', v)), c, d)
  FROM (VALUES
    ('', 'push_subscribers_client_id_has_1_to_128_characters', 'a client has an id'),
    (repeat('x', 129), 'push_subscribers_client_id_has_1_to_128_characters', 'which is not too long'),
    (repeat('x', 128), 'nothing', 'but may be long')
  ) AS t(v, c, d);

-- What is inserted.
SELECT gen_random_uuid() AS ann, gen_random_uuid() AS phone, gen_random_uuid() AS route \gset
SELECT set_config('backend.request_id', 'request-1', true) \gset ignored_
SELECT set_config('backend.traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', true) \gset ignored_
SELECT backend.push_client_event(:'ann', :'phone', 'game.started', '{"a": 1}', :'route', 'intent-1') \gset ignored_
SELECT results_eq(
    'SELECT event_id, user_id, device_session_id, kind, payload, reason, request_id, trace_id, span_id, created_at, writer FROM backend.push_pending',
    format($$VALUES (%L::uuid, %L::uuid, %L::uuid, 'game.started', '{"a": 1}'::jsonb, NULL::text, 'intent-1',
                     '0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331', transaction_timestamp(), pg_current_xact_id())$$, :'route', :'ann', :'phone'),
    'an event for a client has its route''s id, its intent''s key, the trace and its writer');
DELETE FROM backend.push_pending;
SELECT backend.push_session_invalidation(:'ann', NULL, 'logout') \gset ignored_
SELECT results_eq(
    'SELECT user_id, device_session_id, kind, payload, reason, request_id, trace_id, span_id, writer FROM backend.push_pending',
    format($$VALUES (%L::uuid, NULL::uuid, NULL::text, NULL::jsonb, 'logout', 'request-1', '0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331', pg_current_xact_id())$$, :'ann'),
    'an invalidation has its reason and the request');
SELECT set_config('backend.traceparent', '', true) \gset ignored_
DELETE FROM backend.push_pending;
SELECT backend.push_session_invalidation(:'ann', :'phone', 'logout') \gset ignored_
SELECT is((SELECT trace_id FROM backend.push_pending), NULL, 'without a trace there is none');
SELECT is((SELECT span_id FROM backend.push_pending), NULL, 'nor a span');
SELECT is_empty(
    $$SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()$$, 'a writer keeps no lock, or the sequencer could never wake');

-- Cursors.
SELECT is(backend.push_cursor(1700000000, 42), '0000000001700000000-0000000000000000042', 'a cursor is epoch-position, zero-padded');
SELECT cmp_ok(
    backend.push_cursor(1, 9) COLLATE "C", '<', backend.push_cursor(1, 10) COLLATE "C", 'cursors grow with positions, byte by byte');
SELECT cmp_ok(
    backend.push_cursor(9, 9223372036854775807) COLLATE "C", '<', backend.push_cursor(10, 0) COLLATE "C", 'and with epochs');

-- Invariants.
SELECT is_empty('SELECT * FROM backend.invariants_push', 'nothing is wrong yet');
INSERT INTO backend.push_events (position, event_id, user_id, reason, created_at) SELECT i, gen_random_uuid(), :'ann', 'logout', now() FROM unnest(ARRAY[3, 5]) AS i;
UPDATE backend.push_epoch SET purged_through = 2;
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_push', $$VALUES ('push_stream_has_a_hole', 5::bigint)$$,
    'a hole in the stream is listed; what retention deleted is none');
SELECT is(backend.push_head(), 5::bigint, 'the head is the last event''s position');
DELETE FROM backend.push_events WHERE position = 3;
UPDATE backend.push_epoch SET purged_through = 5;
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_push', $$VALUES ('push_event_outlived_its_purge', 5::bigint)$$,
    'an event that was said to be deleted is listed');
DELETE FROM backend.push_events;
SELECT is(backend.push_head(), 5::bigint, 'and stays when retention has deleted that');

-- Epochs.
UPDATE backend.push_epoch SET epoch = 1;
INSERT INTO backend.push_subscribers VALUES ('gateway-1', gen_random_uuid(), gen_random_uuid());
SELECT matches(backend.push_epoch_begin(), '^0{9}[0-9]{10}-0000000000000000005$', 'a new epoch is known by its seconds, and goes on after the last position');
SELECT is_empty('SELECT FROM backend.push_subscribers', 'whoever was subscribed comes anew');
UPDATE backend.push_epoch SET epoch = 5000000000;
SELECT matches(backend.push_epoch_begin(), '^0{9}5000000001-', 'an epoch is greater than the one before, whatever the clock says');

SELECT * FROM finish();
ROLLBACK;
