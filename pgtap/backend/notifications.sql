-- Test galaxy-backend:backend/notifications

BEGIN;
SELECT plan(97);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes.
CREATE TEMPORARY TABLE tables (t text);
INSERT INTO tables VALUES ('notification_kinds'), ('notifications'), ('notification_routes'), ('notification_malformed_intents');
SELECT has_table('backend', t, format('there is %s', t)) FROM tables;
SELECT col_is_pk('backend', t, c, format('%s has its key', t))
  FROM (VALUES ('notification_kinds', 'kind'), ('notifications', 'notification_id'), ('notification_routes', 'route_id'),
               ('notification_malformed_intents', 'malformed_id')) AS t(t, c);
SELECT fk_ok('backend', 'notifications', 'kind', 'backend', 'notification_kinds', 'kind', 'a notification is of a kind');
SELECT fk_ok('backend', 'notifications', 'user_id', 'backend', 'accounts', 'user_id', 'and for a person');
SELECT fk_ok('backend', 'notification_routes', 'notification_id', 'backend', 'notifications', 'notification_id', 'a route is of a notification');
SELECT col_is_null('backend', 'notification_malformed_intents', c, format('of what is malformed %s may be missing', c))
  FROM unnest(ARRAY['idempotency_key', 'user_id', 'payload']) AS c;
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('notification_problem', 'stable'), ('notification_submit', 'volatile')) AS t(f, v);

-- Privileges.
GRANT SELECT ON tables TO backend_api;
SET LOCAL ROLE backend_api;
SELECT throws_ok(format('SELECT FROM backend.%I', t), '42501', NULL, format('backend_api does not see %s', t)) FROM tables;
SELECT throws_ok($$SELECT backend.notification_submit('game.started', 'x', gen_random_uuid(), '{}')$$, '42501', NULL, 'and tells nobody anything but through its door');
RESET ROLE;

-- The catalogue is closed, and this is it.
SELECT set_eq(
    $$SELECT kind, array_to_string(channels, ','), is_for_administrators, (SELECT string_agg(k || ' ' || v, ',' ORDER BY k) FROM jsonb_each_text(fields) AS f(k, v))
        FROM backend.notification_kinds$$,
    $$VALUES ('lobby.invite.received', 'push,email', false, 'game_id uuid,inviter_user_id uuid?'),
             ('lobby.invite.revoked', 'push', false, 'game_id uuid'),
             ('lobby.application.submitted', 'push', false, 'application_id uuid,game_id uuid'),
             ('lobby.application.approved', 'push,email', false, 'game_id uuid'),
             ('lobby.application.rejected', 'push,email', false, 'game_id uuid'),
             ('lobby.membership.removed', 'push,email', false, 'game_id uuid,reason text'),
             ('lobby.membership.blocked', 'push,email', false, 'game_id uuid'),
             ('lobby.race_name.registered', 'push', false, 'race_name text'),
             ('lobby.race_name.expired', 'push', false, 'race_name text'),
             ('lobby.race_name.pending', 'push,email', false, 'expires_at time,race_name text'),
             ('runtime.image_pull_failed', 'email', true, 'game_id uuid,image_ref text'),
             ('runtime.container_start_failed', 'email', true, 'game_id uuid'),
             ('runtime.start_config_invalid', 'email', true, 'game_id uuid,reason text'),
             ('game.turn.ready', 'push', false, 'game_id uuid,turn integer'),
             ('game.paused', 'push', false, 'game_id uuid,reason text,turn integer'),
             ('game.started', 'push,email', false, 'game_id uuid'),
             ('game.finished', 'push,email', false, 'game_id uuid'),
             ('game.generation.failed', 'email', true, 'game_id uuid,reason text,turn integer'),
             ('diplomail.received', 'push', false, 'game_id uuid,message_id uuid'),
             ('mail.dead_lettered', 'email', true, 'delivery_id uuid,template_id text')$$,
    'the kinds, their channels and their fields');
SELECT set_eq(
    $$SELECT kind FROM backend.notification_kinds WHERE 'email' = ANY (channels)$$,
    $$SELECT template_id FROM backend.mail_templates WHERE template_id <> 'auth.login_code'$$, 'each that goes by mail has its template, and no other has');
SELECT lives_ok(
    format('SELECT backend.mail_enqueue(%L, ''test'', ARRAY[''a@example.org''], %L)', k.kind,
           (SELECT jsonb_object_agg(f, 'x') FROM jsonb_object_keys(k.fields) AS f) || CASE WHEN k.fields ? 'game_id' THEN '{"game_name": "G"}' ELSE '{}' END::jsonb),
    format('the mail of %s needs nothing but its fields and the game''s name', k.kind))
  FROM backend.notification_kinds AS k WHERE 'email' = ANY (k.channels) ORDER BY k.kind;
SELECT is_empty(
    $$SELECT p.subject FROM backend.mail_payloads AS p WHERE concat(p.subject, p.body_text, p.body_html) ~ '[{}]'$$, 'and leaves none of them unfilled');

-- The machine of a route.
SELECT set_eq(
    $$SELECT action, from_state, to_state FROM backend.state_transitions WHERE machine = 'notification_route'$$,
    $$SELECT 'open' AS action, NULL AS from_state, 'pending' AS to_state UNION ALL SELECT 'retry', 'pending', 'retrying' UNION ALL SELECT 'retry-dead', 'dead_lettered', 'pending'
      UNION ALL SELECT a, f, t FROM (VALUES ('deliver', 'delivered'), ('give-up', 'dead_lettered'), ('skip', 'skipped'), ('cancel', 'cancelled')) AS e(a, t),
                                    unnest(ARRAY['pending', 'retrying']) AS f$$, 'a route has these edges');

-- What is wrong with an intent.
SELECT is(backend.notification_problem(k, p::jsonb), e, d)
  FROM (VALUES
    ('game.turn.ready', '{"game_id": "0197f3a2-0000-7000-8000-000000000001", "turn": 1}', NULL, 'nothing, where all is there'),
    ('game.turn.ready', '{"game_id": "0197f3a2-0000-7000-8000-000000000001", "turn": 0, "more": true}', NULL, 'nor where more is'),
    ('game.turn.gone', '{}', 'the kind is not in the catalogue', 'a kind that is not known'),
    (NULL, '{}', 'the kind is not in the catalogue', 'no kind at all'),
    ('game.started', '[]', 'the payload is not an object', 'a payload that is a list'),
    ('game.started', 'null', 'the payload is not an object', 'one that is null'),
    ('game.started', NULL, 'the payload is not an object', 'none at all'),
    ('game.started', '{}', 'the field game_id is missing', 'a field that is missing'),
    ('game.started', '{"game_id": null}', 'the field game_id is missing', 'or null'),
    ('game.started', '{"game_id": "7"}', 'the field game_id is not of type uuid', 'an id that is none'),
    ('game.started', '{"game_id": {"a": 1}}', 'the field game_id is not of type uuid', 'an object for an id'),
    ('game.turn.ready', '{"game_id": "0197f3a2-0000-7000-8000-000000000001", "turn": "1"}', 'the field turn is not of type integer', 'a number in quotes'),
    ('game.turn.ready', '{"game_id": "0197f3a2-0000-7000-8000-000000000001", "turn": 1.5}', 'the field turn is not of type integer', 'a broken number'),
    ('game.turn.ready', '{"game_id": "0197f3a2-0000-7000-8000-000000000001", "turn": -1}', 'the field turn is not of type integer', 'a negative one'),
    ('game.turn.ready', '{"game_id": "0197f3a2-0000-7000-8000-000000000001", "turn": 1e10}', 'the field turn is not of type integer', 'one that is too great'),
    ('lobby.race_name.registered', '{"race_name": 7}', 'the field race_name is not of type text', 'a number for text'),
    ('lobby.race_name.registered', '{"race_name": ""}', 'the field race_name is not of type text', 'empty text'),
    ('lobby.race_name.registered', format('{"race_name": "%s"}', repeat('x', 1001)), 'the field race_name is not of type text', 'text without end'),
    ('lobby.race_name.registered', format('{"race_name": "%s"}', repeat('x', 1000)), NULL, 'but not long text'),
    ('lobby.race_name.pending', '{"race_name": "x", "expires_at": "2026-01-01T00:00:00Z"}', NULL, 'a time'),
    ('lobby.race_name.pending', '{"race_name": "x", "expires_at": "2026-01-01T00:00:00.123456Z"}', NULL, 'with microseconds'),
    ('lobby.race_name.pending', '{"race_name": "x", "expires_at": "2026-01-01"}', 'the field expires_at is not of type time', 'a day for a time'),
    ('lobby.race_name.pending', '{"race_name": "x", "expires_at": "2026-01-01T00:00:00+01:00"}', 'the field expires_at is not of type time', 'a time of elsewhere')
  ) AS t(k, p, e, d);

-- Somebody is told.
SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob') AS bob, '0197f3a2-0000-7000-8000-000000000001' AS game \gset
SET LOCAL backend.request_id = 'request-1';
SET LOCAL backend.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
SELECT backend.notification_submit('game.turn.ready', 'turn-ready:1', :'ann', jsonb_build_object('game_id', :'game', 'turn', 1)) AS turn \gset
SELECT results_eq(
    'SELECT notification_id, kind, idempotency_key, user_id, payload, request_id, trace_id FROM backend.notifications',
    format($$VALUES (%L::uuid, 'game.turn.ready', 'turn-ready:1', %L::uuid, '{"game_id": "%s", "turn": 1}'::jsonb, 'request-1', '0af7651916cd43dd8448eb211c80319c')$$,
           :'turn', :'ann', :'game'), 'a notification is kept, with its cause');
SELECT results_eq(
    'SELECT notification_id, channel, status, attempts FROM backend.notification_routes',
    format($$VALUES (%L::uuid, 'push', 'delivered', 1)$$, :'turn'), 'by push it is delivered at once');
SELECT results_eq(
    'SELECT event_id, user_id, device_session_id, kind, payload, request_id, trace_id FROM backend.push_pending',
    format($$SELECT r.route_id, %L::uuid, NULL::uuid, 'game.turn.ready', '{"game_id": "%s", "turn": 1}'::jsonb, 'turn-ready:1', '0af7651916cd43dd8448eb211c80319c'
               FROM backend.notification_routes AS r$$, :'ann', :'game'),
    'as an event with the route''s id, the intent''s key and the trace of its cause');
SELECT is_empty($$SELECT FROM procrastinate.procrastinate_jobs WHERE queue_name = 'notifications'$$, 'for which no job is needed');
SELECT is(
    backend.notification_submit('game.turn.ready', 'turn-ready:1', :'ann', jsonb_build_object('game_id', :'game', 'turn', 1)), :'turn',
    'the same again is the same notification');
SELECT is(
    backend.notification_submit('game.turn.ready', 'turn-ready:1', :'ann', jsonb_build_object('game_id', :'game', 'turn', 2)), :'turn',
    'whatever it says');
SELECT is((SELECT count(*) FROM backend.push_pending), 1::bigint, 'and is told once');
SELECT isnt(
    backend.notification_submit('game.turn.ready', k, u, jsonb_build_object('game_id', :'game', 'turn', 1)), :'turn', d)
  FROM (VALUES ('turn-ready:1', :'bob'::uuid, 'to somebody else it is another'), ('turn-ready:2', :'ann'::uuid, 'under another key too')) AS t(k, u, d);
SELECT isnt(
    backend.notification_submit('lobby.race_name.registered', 'turn-ready:1', :'ann', '{"race_name": "Zorg"}'), :'turn', 'and of another kind');

-- By mail.
SELECT backend.notification_submit('game.started', 'started', :'ann', jsonb_build_object('game_id', :'game')) AS started \gset
SELECT set_eq(
    format('SELECT channel, status, attempts FROM backend.notification_routes WHERE notification_id = %L', :'started'),
    $$VALUES ('push', 'delivered', 1), ('email', 'pending', 0)$$, 'what goes by mail too has a route that waits');
SELECT results_eq(
    $$SELECT queue_name::text, task_name::text, args FROM procrastinate.procrastinate_jobs WHERE queue_name = 'notifications'$$,
    $$VALUES ('notifications', 'notification_deliver',
              '{"context": {"request_id": "request-1", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}'::jsonb)$$,
    'for a job, which has the context of its cause');
SELECT is((SELECT count(*) FROM backend.mail_deliveries WHERE idempotency_key <> 'test'), 0::bigint, 'nothing is in the outbox yet');

-- Administrators.
SELECT backend.notification_submit('runtime.container_start_failed', 'failed', NULL, jsonb_build_object('game_id', :'game')) AS failed \gset
SELECT results_eq(
    format('SELECT channel, status FROM backend.notification_routes WHERE notification_id = %L', :'failed'), $$VALUES ('email', 'pending')$$,
    'administrators are told by mail only');
SELECT is(
    backend.notification_submit('runtime.container_start_failed', 'failed', NULL, jsonb_build_object('game_id', :'game')), :'failed', 'and once too');

-- What is malformed is kept aside, and harms nobody.
SELECT is(backend.notification_submit(k, 'key', u, p::jsonb), NULL, d)
  FROM (VALUES
    ('game.exploded', :'ann'::uuid, '{"a": 1}', 'an unknown kind is no notification'),
    ('game.started', :'ann'::uuid, '{}', 'nor is one with too little'),
    ('game.started', NULL, jsonb_build_object('game_id', :'game')::text, 'nor one for nobody'),
    ('runtime.container_start_failed', :'ann'::uuid, jsonb_build_object('game_id', :'game')::text, 'nor one for a person that is not for people')
  ) AS t(k, u, p, d);
SELECT set_eq(
    'SELECT kind, idempotency_key, user_id, payload, reason FROM backend.notification_malformed_intents',
    format($$VALUES ('game.exploded', 'key', %1$L::uuid, '{"a": 1}'::jsonb, 'the kind is not in the catalogue'),
                    ('game.started', 'key', %1$L, '{}', 'the field game_id is missing'),
                    ('game.started', 'key', NULL, '{"game_id": "%2$s"}', 'the kind is for a person'),
                    ('runtime.container_start_failed', 'key', %1$L, '{"game_id": "%2$s"}', 'the kind is for administrators')$$, :'ann', :'game'),
    'each is kept with the reason');
SELECT is((SELECT count(*) FROM backend.notifications), 6::bigint, 'and nobody was told');
SELECT lives_ok(format('SELECT backend.notification_submit(%s, jsonb_build_object(''game_id'', %L::text))', v, :'game'), d)
  FROM (VALUES ($$'game.started', 'key', gen_random_uuid()$$, 'a person that is not there harms nobody'),
               (format($$'game.started', NULL, %L::uuid$$, :'ann'), 'nor does a key that is missing'),
               (format($$'game.started', repeat('x', 201), %L::uuid$$, :'ann'), 'nor one that is too long')) AS t(v, d);

-- Constraints.
SELECT is(pg_temp.violated('INSERT INTO backend.' || replace(replace(v, ':ann', quote_literal(:'ann')), ':turn', quote_literal(:'turn'))), c, d)
  FROM (VALUES
    ($$notification_kinds (kind, channels, fields) VALUES ('Bad', '{push}', '{}')$$, 'notification_kinds_kind_is_dotted', 'a kind''s name is dotted'),
    ($$notification_kinds (kind, channels, fields) VALUES ('a.b', '{pigeon}', '{}')$$, 'notification_kinds_channels_are_known', 'a channel is known'),
    ($$notifications (kind, idempotency_key, user_id, payload) VALUES ('game.started', '', :ann, '{}')$$, 'notifications_key_has_1_to_200_characters', 'a key is something'),
    (format($$notifications (kind, idempotency_key, user_id, payload) VALUES ('game.started', %L, :ann, '{}')$$, repeat('x', 201)),
        'notifications_key_has_1_to_200_characters', 'and not too long'),
    ($$notifications (kind, idempotency_key, user_id, payload) VALUES ('game.started', 'started', :ann, '{}')$$,
        'notifications_one_per_kind_key_and_person', 'one kind, key and person is one notification'),
    ($$notifications (kind, idempotency_key, payload) VALUES ('runtime.container_start_failed', 'failed', '{}')$$,
        'notifications_one_per_kind_key_and_person', 'and so for administrators'),
    ($$notification_routes (notification_id, channel) VALUES (:turn, 'pigeon')$$, 'notification_routes_channel_is_known', 'a route''s channel is known'),
    ($$notification_routes (notification_id, channel) VALUES (:turn, 'push')$$, 'notification_routes_one_per_channel', 'there is one route by each')
  ) AS t(v, c, d);

-- Invariants.
SELECT is_empty('SELECT * FROM backend.invariants_notifications', 'nothing is wrong yet');
DELETE FROM backend.notification_routes WHERE notification_id = :'turn';
SELECT results_eq(
    'SELECT invariant, object_id, details FROM backend.invariants_notifications',
    format($$VALUES ('notification_without_its_routes', %L::uuid, 'game.turn.ready')$$, :'turn'), 'a notification with no route is listed');
INSERT INTO backend.notification_routes (notification_id, channel) VALUES (:'turn', 'push'), (:'turn', 'email');
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_notifications',
    format($$VALUES ('notification_without_its_routes', %L::uuid)$$, :'turn'), 'one with too many too');
DELETE FROM backend.notification_routes WHERE notification_id = :'turn' AND channel = 'email';
INSERT INTO backend.notification_kinds (kind, channels, fields) VALUES ('test.kind', '{email}', '{}'), ('test.other', '{push}', '{}');
SELECT results_eq(
    'SELECT invariant, object_id, details FROM backend.invariants_notifications',
    $$VALUES ('email_kind_without_a_template', NULL::uuid, 'test.kind')$$, 'a kind that goes by mail and has no template is listed');

SELECT * FROM finish();
ROLLBACK;
