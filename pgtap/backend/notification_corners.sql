-- Test of notifications and mail where rules of several changes meet: who is reminded of what, and what is tried again.

BEGIN;
SELECT plan(23);
\ir ../helpers.psql
\ir ../games.psql

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid', 'permanent') AS cid \gset
CREATE FUNCTION pg_temp.running(p_owner uuid, p_guests uuid[]) RETURNS uuid
LANGUAGE plpgsql
AS $$
DECLARE
    v_game_id uuid := pg_temp.game(p_owner, '{"race_name": "Alphas"}');
BEGIN
    PERFORM pg_temp.join(v_game_id, g, 'Guests ' || n) FROM unnest(p_guests) WITH ORDINALITY AS t(g, n);
    PERFORM pg_temp.bring(v_game_id, 'running');
    RETURN v_game_id;
END;
$$;
CREATE FUNCTION pg_temp.turn(p_user_id uuid, p_game_id uuid, p_turn integer) RETURNS uuid
LANGUAGE sql
RETURN backend.notification_submit('game.turn.ready', format('turn-ready:%s:%s', p_game_id, p_turn), p_user_id, jsonb_build_object('game_id', p_game_id, 'turn', p_turn));
CREATE FUNCTION pg_temp.reminder(p_user_id uuid, p_turn integer) RETURNS backend.notification_routes
LANGUAGE sql
RETURN (SELECT r FROM backend.notification_routes AS r JOIN backend.notifications AS n USING (notification_id)
         WHERE n.user_id = p_user_id AND n.payload ->> 'turn' = p_turn::text AND r.channel = 'email');
COMMENT ON FUNCTION pg_temp.reminder(uuid, integer) IS 'The route by which somebody is reminded of a turn.';

-- Who has opened a session since a turn has been there, though nobody has noted them since.
SELECT pg_temp.running(:'cid', ARRAY[:'ann', :'bob']::uuid[]) AS game \gset
UPDATE backend.accounts SET turn_reminder = 'each' WHERE user_id IN (:'ann', :'bob');
SELECT pg_temp.turn(u, :'game', 101) FROM unnest(ARRAY[:'ann', :'bob']::uuid[]) AS u \g /dev/null
SELECT pg_temp.advance('30 minutes') \g /dev/null
INSERT INTO backend.device_sessions (user_id, kind, client_public_key) VALUES (:'ann', 'key', sha256('ann'));
SELECT is((SELECT last_seen_at FROM backend.device_sessions WHERE user_id = :'ann'), NULL, 'who has signed in has not been noted yet');
SELECT pg_temp.advance('30 minutes') \g /dev/null
SELECT worker.notification_routes_deliver(10, NULL) \g /dev/null
SELECT results_eq(
    format('SELECT status, last_error FROM pg_temp.reminder(%L, 101)', u), format('VALUES (%L, %L)', s, e), d)
  FROM (VALUES (:'ann', 'skipped', 'they have been seen since', 'and needs no reminder'), (:'bob', 'delivered', NULL, 'who has not been there does')) AS t(u, s, e, d);

-- Of a game that is over nobody is reminded, by the turn or by the day.
UPDATE backend.accounts SET turn_reminder = 'daily' WHERE user_id = :'bob';
SELECT pg_temp.advance('1 day'), pg_temp.turn(u, :'game', 102) FROM unnest(ARRAY[:'ann', :'bob']::uuid[]) AS u \g /dev/null
UPDATE backend.runtime_records SET turn_requested_at = backend.now() WHERE game_id = :'game';
SELECT worker.turn_report(:'game', lease_number, 1, true, pg_temp.players(:'game')) FROM worker.turn_claim(:'game', 60) \g /dev/null
SELECT is(pg_temp.state(:'game'), 'finished', 'a game ends while reminders of it wait');
SELECT pg_temp.advance('1 day'), worker.notification_routes_deliver(10, NULL), worker.turn_digests_deliver(10) \g /dev/null
SELECT is((SELECT count(*) FROM backend.memberships WHERE game_id = :'game' AND status = 'active'), 3::bigint, 'whose members keep their seats');
SELECT results_eq(
    format('SELECT status, last_error FROM pg_temp.reminder(%L, 102)', u), $$VALUES ('skipped', 'they do not play it any more')$$, d)
  FROM (VALUES (:'ann', 'who wants one for each turn gets none'), (:'bob', 'nor does who wants one a day')) AS t(u, d);

-- The mail of a day has what is due that day, however late the worker is.
SELECT pg_temp.running(:'cid', ARRAY[:'ann', :'bob']::uuid[]) AS game \gset
SELECT pg_temp.turn(:'bob', :'game', 201) \g /dev/null
SELECT pg_temp.advance((pg_temp.reminder(:'bob', 201)).next_attempt_at - backend.now() + interval '1 minute') \g /dev/null
SELECT pg_temp.turn(:'bob', :'game', 202) \g /dev/null
SELECT is((SELECT count(*) FROM worker.turn_digests_deliver(10)), 1::bigint, 'one turn is told of in the morning');
SELECT is((pg_temp.reminder(:'bob', 201)).status, 'delivered', 'that which was due');
SELECT results_eq(
    format('SELECT status, attempts FROM pg_temp.reminder(%L, 202)', :'bob'), $$VALUES ('pending', 0)$$, 'the one that came since waits for the next');
SELECT results_eq(
    $$SELECT p.body_text ~ 'turn 201', p.body_text ~ '202' FROM backend.mail_deliveries AS d JOIN backend.mail_payloads AS p USING (payload_id) WHERE d.template_id = 'game.turn.digest'$$,
    'VALUES (true, false)', 'and is not spoken of');

-- A template that is not there harms nobody but its mail, which goes out when it is there again.
CREATE TEMPORARY TABLE away AS SELECT * FROM backend.mail_templates WHERE template_id = 'lobby.membership.blocked';
DELETE FROM backend.mail_templates WHERE template_id = 'lobby.membership.blocked';
SELECT lives_ok(
    format($$SELECT backend.notification_submit('lobby.membership.blocked', 'gone', %L, '{"game_id": "%s"}')$$, :'ann', :'game'), 'who tells of something goes on without its template');
CREATE FUNCTION pg_temp.gone() RETURNS backend.notification_routes
LANGUAGE sql
RETURN (SELECT r FROM backend.notification_routes AS r JOIN backend.notifications AS n USING (notification_id) WHERE n.idempotency_key = 'gone' AND r.channel = 'email');
SELECT results_eq(
    $$SELECT status, attempts, split_part(last_error, ' ', 1) FROM pg_temp.gone()$$, $$VALUES ('retrying', 1, 'P0002')$$, 'the mail is tried again');
SELECT pg_temp.advance('1 hour') \g /dev/null
SELECT lives_ok('SELECT worker.notification_routes_deliver(10, NULL)', 'which harms no worker');
SELECT is((pg_temp.gone()).attempts, 2, 'and counts');

-- A dead letter that is tried again has as many tries as a new one.
SET LOCAL backend.notification_max_attempts = '3';
SELECT pg_temp.advance('1 hour'), worker.notification_routes_deliver(10, NULL) \g /dev/null
SELECT results_eq('SELECT status, attempts FROM pg_temp.gone()', $$VALUES ('dead_lettered', 3)$$, 'after so many it is given up');
SELECT is(
    jsonb_path_query_first(api.notification_dead_letter_retry('root', (pg_temp.gone()).route_id)::jsonb, '$.routes[*] ? (@.channel == "email")')
        - ARRAY['route_id', 'last_error', 'next_attempt_at', 'delivery_id'],
    '{"channel": "email", "status": "pending", "attempts": 0}', 'an administrator has it tried again, from the beginning');
SELECT worker.notification_routes_deliver(10, NULL) \g /dev/null
SELECT results_eq('SELECT status, attempts FROM pg_temp.gone()', $$VALUES ('retrying', 1)$$, 'and once more after the first failure');
INSERT INTO backend.mail_templates SELECT * FROM away;
SELECT pg_temp.advance('1 hour'), worker.notification_routes_deliver(10, NULL) \g /dev/null
SELECT results_eq('SELECT status, attempts FROM pg_temp.gone()', $$VALUES ('delivered', 2)$$, 'until it goes out');

-- A mail in a worker's hands, to somebody who goes.
SELECT backend.mail_enqueue('game.started', 'leased', ARRAY['ann@example.org'], '{"game_name": "G"}', :'ann') AS mail \gset
SELECT worker.mail_claim(1000, 60, 0) \g /dev/null
SELECT is((SELECT lease_until FROM backend.mail_deliveries WHERE delivery_id = :'mail'), backend.now() + interval '60 seconds', 'a worker has a mail');
SELECT api.my_account_delete(:'ann') \g /dev/null
SELECT results_eq(
    format('SELECT status, lease_until FROM backend.mail_deliveries WHERE delivery_id = %L', :'mail'), $$VALUES ('cancelled', NULL::timestamptz)$$,
    'with the person it is nobody''s any more');
SELECT is(worker.mail_keep(:'mail', 1, 60), false, 'so that whoever had it does not keep it');
SELECT is(worker.mail_report(:'mail', 1, 'transient', '4xx'), 'cancelled', 'nor send it again');

SELECT * FROM finish();
ROLLBACK;
