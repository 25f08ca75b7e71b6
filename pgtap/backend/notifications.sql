-- Test galaxy-backend:backend/notifications

BEGIN;
SELECT plan(147);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes.
CREATE TEMPORARY TABLE tables (t text);
INSERT INTO tables VALUES ('notification_kinds'), ('notifications'), ('notification_routes'), ('notification_malformed_intents'), ('notification_dead_letters'), ('notification_opt_outs');
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
  FROM (VALUES ('notification_problem', 'stable'), ('notification_submit', 'volatile'), ('notification_values', 'stable'), ('notification_route_settle', 'volatile'),
               ('notification_mail', 'volatile'), ('notification_intent_count', 'volatile'), ('notification_json', 'stable'), ('is_time', 'stable'), ('notification_problem_now', 'stable'), ('notification_with_routes_json', 'stable')) AS t(f, v);

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
    $$SELECT kind FROM backend.notification_kinds WHERE 'email' = ANY (channels) OR has_reminder$$,
    $$SELECT template_id FROM backend.mail_templates WHERE template_id NOT IN ('auth.login_code', 'game.turn.digest')$$, 'each that goes by mail has its template, and no other has');
SELECT set_eq('SELECT kind FROM backend.notification_kinds WHERE has_reminder', ARRAY['game.turn.ready'], 'of turns people can be reminded');
SELECT set_eq(
    'SELECT kind FROM backend.notification_kinds WHERE NOT is_optional AND NOT is_for_administrators', ARRAY['lobby.membership.removed', 'lobby.membership.blocked'],
    'what was decided about people they are told');
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
    $$SELECT 'open' AS action, NULL AS from_state, 'pending' AS to_state UNION ALL SELECT 'retry', 'pending', 'retrying' UNION ALL SELECT 'retry', 'retrying', 'retrying' UNION ALL SELECT 'retry-dead', 'dead_lettered', 'pending'
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
    ('lobby.race_name.pending', '{"race_name": "x", "expires_at": "2026-13-45T99:99:99Z"}', 'the field expires_at is not of type time', 'no moment of any calendar'),
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
SELECT backend.notification_submit('no.such', 'x', :'ann', '{}') \g /dev/null
SELECT backend.metrics_add_up(1000) \g /dev/null
SELECT bag_eq(
    $$SELECT labels ->> 'kind' AS kind, labels ->> 'outcome' AS outcome, total FROM backend.metric_totals WHERE metric = 'notification_intents_total'$$,
    $$VALUES ('game.turn.ready', 'accepted', 3::bigint), ('game.turn.ready', 'repeated', 2), ('lobby.race_name.registered', 'accepted', 1), ('unknown', 'malformed', 1)$$,
    'intents are counted, by kinds that the catalogue has');
SELECT results_eq(
    $$SELECT labels, total FROM backend.metric_totals WHERE metric = 'notification_routes_total'$$,
    $$VALUES ('{"channel": "push"}'::jsonb, 4::bigint)$$, 'and the routes by which they went on');
DELETE FROM backend.notification_malformed_intents;

-- By mail, as it is to be read, with its cause.
SELECT pg_temp.game(:'ann', '{"game_name": "Friday <night>"}') AS friday \gset
SELECT count(*) AS mails FROM backend.mail_deliveries \gset
SELECT backend.notification_submit('game.started', 'started', :'ann', jsonb_build_object('game_id', :'friday')) AS started \gset
SELECT set_eq(
    format('SELECT channel, status, attempts FROM backend.notification_routes WHERE notification_id = %L', :'started'),
    $$VALUES ('push', 'delivered', 1), ('email', 'delivered', 1)$$, 'what goes by mail too is in the outbox at once');
SELECT results_eq(
    $$SELECT d.idempotency_key, d.user_id, r.address, p.subject, p.body_html ~ 'Friday &lt;night&gt;', d.request_id
        FROM backend.mail_deliveries AS d JOIN backend.mail_recipients AS r USING (delivery_id) JOIN backend.mail_payloads AS p USING (payload_id)
       WHERE d.template_id = 'game.started' AND d.idempotency_key <> 'test'$$,
    format($$SELECT route_id::text, %L::uuid, 'ann@example.org', 'Your game has started', true, 'request-1'
               FROM backend.notification_routes WHERE notification_id = %L AND channel = 'email'$$, :'ann', :'started'),
    'under the route''s id, to the person, with the game''s name');
SELECT is_empty($$SELECT FROM procrastinate.procrastinate_jobs WHERE queue_name = 'notifications'$$, 'for which no job is needed');
UPDATE backend.mail_templates SET subject = '{{nothing}}' WHERE template_id = 'game.finished';
SELECT backend.notification_submit('game.finished', 'broken', :'ann', jsonb_build_object('game_id', :'friday')) AS broken \gset
SELECT set_eq(
    format($$SELECT channel, status, attempts, last_error, next_attempt_at > backend.now() FROM backend.notification_routes WHERE notification_id = %L$$, :'broken'),
    $$VALUES ('push', 'delivered', 1, NULL, true), ('email', 'retrying', 1, '22023 a mail needs the value nothing', true)$$,
    'a mail that cannot be made harms neither its cause nor the other route');
UPDATE backend.accounts SET email = NULL WHERE user_id = :'bob';
SELECT backend.notification_submit('game.started', 'no address', :'bob', jsonb_build_object('game_id', :'friday')) AS addressless \gset
SELECT set_eq(
    format('SELECT channel, status, last_error FROM backend.notification_routes WHERE notification_id = %L', :'addressless'),
    $$VALUES ('push', 'delivered', NULL), ('email', 'skipped', 'there is no address')$$, 'who has no address gets no mail');
SELECT is((SELECT count(*) FROM backend.mail_deliveries) - :mails, 1::bigint, 'nothing half done is left');

SELECT is(
    backend.notification_values('{"race_name": "Zorg", "expires_at": "2026-12-01T07:05:00.123456Z"}'),
    '{"race_name": "Zorg", "expires_at": "1 December 2026, 07:05 UTC", "game_name": "a game that is gone"}', 'a mail tells times as people do');

SELECT lives_ok(format($$SELECT backend.notification_submit('lobby.application.approved', 'surplus', %L, '{"game_id": "%s", "expires_at": "zzz"}')$$, :'ann', :'friday'), 'a surplus field that makes no sense harms nobody');
SELECT lives_ok(format($$SELECT backend.notification_submit(NULL, 'no kind', %L, '{}')$$, :'ann'), 'nor does no kind at all');
DELETE FROM backend.notification_malformed_intents;
-- An invite a day from the same person; the others are told by push.
SELECT backend.notification_submit('lobby.invite.received', 'invite-' || n, :'ann', jsonb_build_object('game_id', :'friday', 'inviter_user_id', i))
  FROM generate_series(1, 3) AS n, unnest(ARRAY[:'bob', gen_random_uuid()::text]) AS i WHERE n = 1 OR i = :'bob' \g /dev/null
SELECT set_eq(
    $$SELECT r.status, r.last_error, count(*) FROM backend.notification_routes AS r JOIN backend.notifications AS n USING (notification_id)
       WHERE n.kind = 'lobby.invite.received' AND r.channel = 'email' GROUP BY 1, 2$$,
    $$VALUES ('delivered', NULL, 1::bigint), ('skipped', 'they had such a mail today', 2)$$, 'nobody is flooded with mail by inviting without end');

-- What people want.
SELECT is(
    backend.notification_preferences_json(a) -> 'channels',
    (SELECT jsonb_object_agg(kind, (SELECT jsonb_object_agg(c, true) FROM unnest(channels) AS c)) FROM backend.notification_kinds WHERE is_optional),
    'who has said nothing is told by every channel')
  FROM backend.accounts AS a WHERE user_id = :'ann';
SELECT pg_temp.person('cleo') AS cleo \gset
INSERT INTO backend.notification_opt_outs (user_id, kind, channel) VALUES (:'cleo', 'game.started', 'email'), (:'cleo', 'game.turn.ready', 'push');
SELECT is(
    backend.notification_preferences_json(a) #> '{channels,game.started}', '{"push": true, "email": false}', 'who does not want a channel has said so')
  FROM backend.accounts AS a WHERE user_id = :'cleo';
SELECT backend.notification_submit('game.started', 'wanted', :'cleo', jsonb_build_object('game_id', :'friday')) AS wanted,
       backend.notification_submit('game.turn.ready', 'wanted', :'cleo', jsonb_build_object('game_id', :'friday', 'turn', 1)) AS unwanted \gset
SELECT set_eq(
    format('SELECT notification_id, channel, status, last_error FROM backend.notification_routes WHERE notification_id IN (%L, %L)', :'wanted', :'unwanted'),
    format($$VALUES (%1$L::uuid, 'push', 'delivered', NULL), (%1$L, 'email', 'skipped', 'it is not wanted'), (%2$L, 'push', 'skipped', 'it is not wanted')$$, :'wanted', :'unwanted'),
    'and is not told by it, but by the others');
SELECT is_empty(format($$SELECT FROM backend.push_pending WHERE user_id = %L AND kind = 'game.turn.ready'$$, :'cleo'), 'no event comes of it');

-- Reminders of turns.
SELECT is(backend.turn_reminder_due(r, t::timestamptz, z), e::timestamptz, d)
  FROM (VALUES
    ('off', '2026-03-01T12:00:00Z', 'UTC', NULL, 'who does not want to be reminded is not'),
    ('each', '2026-03-01T12:00:00Z', 'UTC', '2026-03-01T13:00:00Z', 'of each turn it is an hour later'),
    ('daily', '2026-03-01T07:59:59Z', 'UTC', '2026-03-01T08:00:00Z', 'by the day it is at eight'),
    ('daily', '2026-03-01T08:00:00Z', 'UTC', '2026-03-02T08:00:00Z', 'at eight it is the next'),
    ('daily', '2026-03-01T12:00:00Z', 'America/New_York', '2026-03-01T13:00:00Z', 'of their zone'),
    ('daily', '2026-03-01T23:30:00Z', 'Asia/Kolkata', '2026-03-02T02:30:00Z', 'whatever its offset'),
    ('daily', '2026-03-28T12:00:00Z', 'Europe/Berlin', '2026-03-29T06:00:00Z', 'also where clocks go forward in that night'),
    ('daily', '2026-10-24T12:00:00Z', 'Europe/Berlin', '2026-10-25T07:00:00Z', 'and where they go back')) AS t(r, t, z, e, d);
SELECT backend.notification_submit('game.turn.ready', 'reminded', :'ann', jsonb_build_object('game_id', :'friday', 'turn', 3)) \g /dev/null
SELECT is(
    (SELECT string_agg(r.channel, ',') FROM backend.notification_routes AS r JOIN backend.notifications AS n USING (notification_id) WHERE n.idempotency_key = 'reminded'),
    'push', 'by itself nobody is reminded');
CREATE FUNCTION pg_temp.reminder(p_key text) RETURNS text LANGUAGE sql
RETURN (SELECT concat_ws(' ', r.status, CASE WHEN r.is_digest THEN 'by the day' END, (r.next_attempt_at - n.created_at)::text)
          FROM backend.notification_routes AS r JOIN backend.notifications AS n USING (notification_id) WHERE n.idempotency_key = p_key AND r.channel = 'email');
UPDATE backend.accounts SET turn_reminder = 'each' WHERE user_id = :'ann';
SELECT backend.notification_submit('game.turn.ready', 'each', :'ann', jsonb_build_object('game_id', :'friday', 'turn', 4)) \g /dev/null
SELECT is(pg_temp.reminder('each'), 'pending 01:00:00', 'who asks for it has a mail that waits for an hour');
SELECT backend.turn_reminders_reschedule(:'ann') \g /dev/null
SELECT is(pg_temp.reminder('each'), 'pending 01:00:00', 'where nothing is chosen anew it stays so');
UPDATE backend.accounts SET turn_reminder = 'daily' WHERE user_id = :'ann';
SELECT backend.notification_submit('game.turn.ready', 'daily', :'ann', jsonb_build_object('game_id', :'friday', 'turn', 5)) \g /dev/null
SELECT matches(pg_temp.reminder('daily'), '^pending by the day ', 'or for the mail of the day');
SELECT backend.turn_reminders_reschedule(:'ann') \g /dev/null
SELECT is(pg_temp.reminder('each'), pg_temp.reminder('daily'), 'what waits follows what is chosen');
UPDATE backend.accounts SET turn_reminder = 'off' WHERE user_id = :'ann';
SELECT backend.turn_reminders_reschedule(:'ann') \g /dev/null
SELECT matches(pg_temp.reminder(k), '^skipped', 'and goes with it') FROM unnest(ARRAY['each', 'daily']) AS k;
SELECT is(backend.turn_reminder_problem(:'ann', gen_random_uuid(), backend.now()), 'they do not play it any more', 'of a game that they do not play nobody is reminded');

-- Administrators.
SELECT backend.notification_submit('runtime.container_start_failed', 'failed', NULL, jsonb_build_object('game_id', :'game')) AS failed \gset
SELECT results_eq(
    format('SELECT channel, status FROM backend.notification_routes WHERE notification_id = %L', :'failed'), $$VALUES ('email', 'pending')$$,
    'administrators are told by mail only');
SELECT is(
    backend.notification_submit('runtime.container_start_failed', 'failed', NULL, jsonb_build_object('game_id', :'game')), :'failed', 'and once too');

-- What is malformed is kept aside, and harms nobody.
SELECT count(*) AS told FROM backend.notifications \gset
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
SELECT is((SELECT count(*) FROM backend.notifications) - :told, 0::bigint, 'and nobody was told');
SELECT lives_ok(format('SELECT backend.notification_submit(%s, jsonb_build_object(''game_id'', %L::text))', v, :'game'), d)
  FROM (VALUES ($$'game.started', 'key', gen_random_uuid()$$, 'a person that is not there harms nobody'),
               (format($$'game.started', NULL, %L::uuid$$, :'ann'), 'nor does a key that is missing'),
               (format($$'game.started', repeat('x', 201), %L::uuid$$, :'ann'), 'nor one that is too long')) AS t(v, d);

-- Constraints.
SELECT is(pg_temp.violated('INSERT INTO backend.' || replace(replace(v, ':ann', quote_literal(:'ann')), ':turn', quote_literal(:'turn'))), c, d)
  FROM (VALUES
    ($$notification_kinds (kind, channels, is_optional, fields) VALUES ('Bad', '{push}', true, '{}')$$, 'notification_kinds_kind_is_dotted', 'a kind''s name is dotted'),
    ($$notification_kinds (kind, channels, is_optional, fields) VALUES ('a.b', '{pigeon}', true, '{}')$$, 'notification_kinds_channels_are_known', 'a channel is known'),
    ($$notification_kinds (kind, channels, is_for_administrators, is_optional, fields) VALUES ('a.b', '{email}', true, true, '{}')$$,
        'notification_kinds_administrators_have_no_choice', 'administrators have no choice'),
    ($$notification_kinds (kind, channels, is_optional, has_reminder, fields) VALUES ('a.b', '{email}', true, true, '{}')$$,
        'notification_kinds_reminder_is_the_only_mail', 'what goes by mail anyway needs no reminder'),
    ($$notification_opt_outs (user_id, kind, channel) VALUES (:ann, 'game.started', 'pigeon')$$, 'notification_opt_outs_channel_is_known', 'what is not wanted is a channel'),
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
SELECT is_empty('SELECT * FROM backend.invariants_notifications', 'one of a turn may have two');
INSERT INTO backend.notification_routes (notification_id, channel)
SELECT n.notification_id, 'push' FROM backend.notifications AS n WHERE n.idempotency_key = 'failed';
SELECT results_eq(
    'SELECT invariant, details FROM backend.invariants_notifications', $$VALUES ('route_by_a_channel_that_its_kind_has_not', 'runtime.container_start_failed')$$,
    'a route that its kind has not is listed');
DELETE FROM backend.notification_routes AS r USING backend.notifications AS n WHERE n.notification_id = r.notification_id AND n.idempotency_key = 'failed' AND r.channel = 'push';
INSERT INTO backend.notification_dead_letters (route_id, reason) SELECT route_id, 'x' FROM backend.notification_routes WHERE notification_id = :'turn' AND channel = 'push';
SELECT results_eq('SELECT invariant, details FROM backend.invariants_notifications', $$VALUES ('dead_letter_and_route_disagree', 'pending')$$, 'a dead letter of a route that lives is listed');
DELETE FROM backend.notification_dead_letters;
INSERT INTO backend.notification_opt_outs (user_id, kind, channel) VALUES (:'cleo', 'lobby.membership.removed', 'push');
SELECT results_eq('SELECT invariant, details FROM backend.invariants_notifications', $$VALUES ('opt_out_of_what_is_not_optional', 'lobby.membership.removed')$$, 'what cannot be refused is listed');
DELETE FROM backend.notification_opt_outs WHERE kind = 'lobby.membership.removed';
INSERT INTO backend.notification_kinds (kind, channels, is_optional, fields) VALUES ('test.kind', '{email}', true, '{}'), ('test.other', '{push}', true, '{}');
SELECT results_eq(
    'SELECT invariant, object_id, details FROM backend.invariants_notifications',
    $$VALUES ('email_kind_without_a_template', NULL::uuid, 'test.kind')$$, 'a kind that goes by mail and has no template is listed');

SELECT * FROM finish();
ROLLBACK;
