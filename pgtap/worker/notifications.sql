-- Test galaxy-backend:worker/notifications

BEGIN;
SELECT plan(73);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], result text);
INSERT INTO functions VALUES
    ('notification_routes_deliver', ARRAY['integer', 'text'], 'setof record'), ('turn_digests_deliver', ARRAY['integer'], 'setof record'),
    ('notifications_purge', ARRAY['integer'], 'integer'), ('malformed_intents_purge', ARRAY['integer'], 'integer');
SELECT function_returns('worker', name, arguments, result, format('%s() works in batches', name)) FROM functions;
SELECT volatility_is('worker', name, arguments, 'volatile', format('%s() is VOLATILE', name)) FROM functions;
SELECT is_definer('worker', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('worker', name, arguments, r, p::name[], format('%s may execute %s(): %s', r, name, p <> '{}'))
  FROM functions, (VALUES ('backend_api', '{}'), ('backend_worker', '{EXECUTE}'), ('backend_push', '{}')) AS t(r, p);

SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob') AS bob \gset
SELECT pg_temp.game(:'ann', '{"game_name": "Friday <night>"}') AS game \gset
CREATE FUNCTION pg_temp.deliver(p_limit integer DEFAULT 10, p_admin_email text DEFAULT 'admin@example.org') RETURNS text[]
LANGUAGE plpgsql SET role = backend_worker
AS $$
BEGIN
    RETURN ARRAY(SELECT concat_ws(' ', d.kind, d.status, d.error) FROM worker.notification_routes_deliver(p_limit, p_admin_email) AS d);
END;
$$;
CREATE FUNCTION pg_temp.digest(p_limit integer DEFAULT 10) RETURNS text[]
LANGUAGE plpgsql SET role = backend_worker
AS $$
BEGIN
    RETURN ARRAY(SELECT concat_ws(' ', d.status, d.error) FROM worker.turn_digests_deliver(p_limit) AS d);
END;
$$;
CREATE FUNCTION pg_temp.route(p_key text) RETURNS backend.notification_routes
LANGUAGE sql
RETURN (SELECT r FROM backend.notification_routes AS r JOIN backend.notifications AS n USING (notification_id)
         WHERE n.idempotency_key = p_key AND r.channel = 'email' ORDER BY r.route_id LIMIT 1);
CREATE FUNCTION pg_temp.failed(p_key text, p_game_id uuid) RETURNS uuid
LANGUAGE sql
RETURN backend.notification_submit('runtime.container_start_failed', p_key, NULL, jsonb_build_object('game_id', p_game_id));
SELECT is(pg_temp.deliver(), '{}', 'where nothing waits nothing is delivered');

-- Administrators.
SELECT pg_temp.failed('one', :'game') \g /dev/null
SELECT is(pg_temp.deliver(0), '{}', 'nor where nothing is asked for');
SELECT is(pg_temp.deliver(), ARRAY['runtime.container_start_failed delivered'], 'administrators are told');
SELECT results_eq(
    $$SELECT status, attempts, last_error FROM pg_temp.route('one')$$, $$VALUES ('delivered', 1, NULL)$$, 'the route says so');
SELECT results_eq(
    $$SELECT d.idempotency_key, r.address, d.user_id, p.body_html ~ 'Friday &lt;night&gt;'
        FROM backend.mail_deliveries AS d JOIN backend.mail_recipients AS r USING (delivery_id) JOIN backend.mail_payloads AS p USING (payload_id)
       WHERE d.template_id = 'runtime.container_start_failed'$$,
    $$VALUES ((pg_temp.route('one')).route_id::text, 'admin@example.org', NULL::uuid, true)$$, 'at their address, under the route''s id');
SELECT is(pg_temp.deliver(), '{}', 'once');
SELECT is(
    backend.mail_enqueue('runtime.container_start_failed', (pg_temp.route('one')).route_id::text, ARRAY['x@example.org'], '{}'),
    (SELECT delivery_id FROM backend.mail_deliveries WHERE template_id = 'runtime.container_start_failed'), 'even if it were again, it would be the same mail');
SELECT pg_temp.failed('three', :'game') \g /dev/null
SELECT is(pg_temp.deliver(10, NULL), ARRAY['runtime.container_start_failed skipped there is no address'], 'where they have no address it is skipped');
SELECT is((pg_temp.route('three')).status, 'skipped', 'and says so');
SELECT is(pg_temp.deliver(), '{}', 'for good');
SELECT backend.notification_submit('mail.dead_lettered', 'four', NULL, jsonb_build_object('delivery_id', :'game', 'template_id', 'x')) \g /dev/null
SELECT is(pg_temp.deliver(), ARRAY['mail.dead_lettered delivered'], 'what is of no game needs none');
SELECT backend.notification_submit('runtime.image_pull_failed', 'five', NULL, jsonb_build_object('game_id', gen_random_uuid(), 'image_ref', 'e:1')) \g /dev/null
SELECT is(pg_temp.deliver(), ARRAY['runtime.image_pull_failed delivered'], 'nor one that is there still');

-- Tried again, and given up; what is beside it goes out.
UPDATE backend.mail_templates SET subject = '{{nothing}}' WHERE template_id = 'game.finished';
SELECT backend.notification_submit('game.finished', 'broken', :'ann', jsonb_build_object('game_id', :'game')) \g /dev/null
SELECT is(pg_temp.deliver(), '{}', 'what failed with its cause is not tried at once');
SELECT pg_temp.advance('5 seconds'), pg_temp.failed('beside', :'game') \g /dev/null
SELECT is(
    pg_temp.deliver(), ARRAY['game.finished retrying 22023 a mail needs the value nothing', 'runtime.container_start_failed delivered'],
    'but after some seconds, and harms no other');
SELECT results_eq(
    $$SELECT status, attempts, last_error, next_attempt_at BETWEEN backend.now() + interval '10 seconds' AND backend.now() + interval '20 seconds' FROM pg_temp.route('broken')$$,
    $$VALUES ('retrying', 2, '22023 a mail needs the value nothing', true)$$, 'then after more');
SELECT is(pg_temp.deliver(), '{}', 'not before');
SELECT is((SELECT count(*) FROM backend.mail_deliveries WHERE template_id = 'game.finished'), 0::bigint, 'nothing half done is left');
CREATE TEMPORARY TABLE waits (attempt integer, wait interval, said text[]);
DO $$
BEGIN
    FOR i IN 3..8 LOOP
        PERFORM pg_temp.advance('1 hour');
        INSERT INTO waits SELECT i, NULL, pg_temp.deliver();
        UPDATE waits SET wait = (SELECT next_attempt_at - backend.now() FROM pg_temp.route('broken')) WHERE attempt = i;
    END LOOP;
END;
$$;
SELECT is_empty(
    $$SELECT attempt, wait FROM waits
       WHERE extract(epoch FROM wait) NOT BETWEEN least(3600, 5 * 4 ^ (attempt - 1)) / 2 AND least(3600, 5 * 4 ^ (attempt - 1))$$,
    'each wait is four times the one before, to an hour, less up to a half');
SELECT is(
    (SELECT array_agg(split_part(said[1], ' ', 2) ORDER BY attempt) FROM waits),
    ARRAY['retrying', 'retrying', 'retrying', 'retrying', 'retrying', 'dead_lettered'], 'the eighth failure is the last');
SELECT results_eq(
    'SELECT route_id, reason FROM backend.notification_dead_letters', $$VALUES ((pg_temp.route('broken')).route_id, '22023 a mail needs the value nothing')$$,
    'a dead letter says why');
SELECT pg_temp.advance('1 day') \g /dev/null
SELECT is(pg_temp.deliver(), '{}', 'then it is not tried any more');
SET LOCAL backend.notification_max_attempts = '1';
SELECT pg_temp.failed('eight', :'game') \g /dev/null
SELECT is(
    (pg_temp.deliver(10, 'not an address'))[1] ~ '^runtime.container_start_failed dead_lettered 23514 ', true, 'how often is a setting; a bad address is a failure like any other');
RESET backend.notification_max_attempts;

-- In their order.
SELECT pg_temp.failed('late', :'game'), pg_temp.failed('early', :'game') \g /dev/null
UPDATE backend.notification_routes SET next_attempt_at = backend.now() - interval '1 second' WHERE route_id = (pg_temp.route('early')).route_id;
SELECT pg_temp.deliver(1) \g /dev/null
SELECT is((pg_temp.route('early')).status || ' ' || (pg_temp.route('late')).status, 'delivered pending', 'what is due for longer goes first, no more than is asked for');
SELECT pg_temp.deliver(1) \g /dev/null
SELECT is((pg_temp.route('late')).status, 'delivered', 'then the next');

-- Reminders. Two play a game, Ann is away.
SELECT pg_temp.person('cleo') AS cleo \gset
SELECT pg_temp.game(:'cleo', '{"race_name": "Alphas"}') AS running \gset
SELECT pg_temp.join(:'running', :'ann', 'Betas'), pg_temp.join(:'running', :'bob', 'Gammas'), pg_temp.bring(:'running', 'running') \g /dev/null
CREATE FUNCTION pg_temp.turn(p_user_id uuid, p_game_id uuid, p_turn integer) RETURNS uuid
LANGUAGE sql
RETURN backend.notification_submit('game.turn.ready', format('turn-ready:%s:%s', p_game_id, p_turn), p_user_id, jsonb_build_object('game_id', p_game_id, 'turn', p_turn));
CREATE FUNCTION pg_temp.reminders() RETURNS SETOF text
LANGUAGE sql
BEGIN ATOMIC
    SELECT concat_ws(': ', d.template_id, p.subject, substring(p.body_text FROM '([^\n]*: turns? [^\n]*)'))
      FROM backend.mail_deliveries AS d JOIN backend.mail_payloads AS p USING (payload_id)
     WHERE d.template_id ~ '^game.turn' ORDER BY d.delivery_id;
END;
INSERT INTO backend.device_sessions (user_id, kind, client_public_key) VALUES (:'ann', 'key', sha256('ann')), (:'bob', 'key', sha256('bob'));
SELECT pg_temp.advance('1 hour') \g /dev/null
UPDATE backend.accounts SET turn_reminder = 'each' WHERE user_id IN (:'ann', :'bob');
SELECT pg_temp.turn(u, :'running', 1) FROM unnest(ARRAY[:'ann', :'bob']::uuid[]) AS u \g /dev/null
SELECT pg_temp.advance('59 minutes') \g /dev/null
SELECT is(pg_temp.deliver(), '{}', 'for an hour nobody is reminded');
UPDATE backend.device_sessions SET last_seen_at = backend.now() WHERE user_id = :'bob';
SELECT pg_temp.advance('1 minute') \g /dev/null
SELECT bag_eq(
    'SELECT unnest(pg_temp.deliver())', $$VALUES ('game.turn.ready delivered'), ('game.turn.ready skipped they have been seen since')$$, 'then who has been away is, and who was seen is not');
SELECT results_eq('SELECT pg_temp.reminders()', $$VALUES ('game.turn.ready: Turn 1 is ready')$$, 'by a mail');
SELECT pg_temp.advance('1 day') \g /dev/null
SELECT is(pg_temp.deliver(), '{}', 'once');

-- By the day: one mail, with all that came since.
UPDATE backend.accounts SET turn_reminder = 'daily', time_zone = 'Asia/Tokyo' WHERE user_id IN (:'ann', :'bob');
SELECT pg_temp.turn(u, :'running', t) FROM unnest(ARRAY[:'ann', :'bob']::uuid[]) AS u, generate_series(2, 11) AS t \g /dev/null
SELECT is(pg_temp.deliver() || pg_temp.digest(), '{}', 'the mail of the day waits for its hour');
SELECT pg_temp.advance(next_attempt_at - backend.now() - interval '1 second') FROM pg_temp.route(format('turn-ready:%s:2', :'running')) \g /dev/null
SELECT is(pg_temp.digest(), '{}', 'to the second');
SELECT pg_temp.advance('1 second') \g /dev/null
UPDATE backend.device_sessions SET last_seen_at = backend.now() WHERE user_id = :'bob';
SELECT is(to_char(backend.now() AT TIME ZONE 'Asia/Tokyo', 'HH24:MI:SS'), '08:00:00', 'which is eight in the morning where they are');
SELECT is(pg_temp.deliver(), '{}', 'it is not sent turn by turn');
SELECT is(cardinality(pg_temp.digest(1)), 10, 'so many people are looked at as are asked for');
SELECT is(cardinality(pg_temp.digest(1)), 10, 'one after the other');
SELECT is(pg_temp.digest(), '{}', 'and that is all');
SELECT results_eq(
    'SELECT pg_temp.reminders()',
    $$VALUES ('game.turn.ready: Turn 1 is ready'), ('game.turn.digest: Your turns are ready: Test: turn 2, 3, 4, 5, 6, 7, 8, 9, 10, 11')$$,
    'who was away has one mail with every turn, in order');
SELECT results_eq(
    format($$SELECT r.status, count(*) FROM backend.notification_routes AS r JOIN backend.notifications AS n USING (notification_id)
              WHERE r.channel = 'email' AND n.idempotency_key ~ 'turn-ready' AND n.user_id = %L GROUP BY 1 ORDER BY 1$$, :'bob'),
    $$VALUES ('skipped', 11::bigint)$$, 'who was seen has none');

-- A digest that failed stays one, and asks again what is wanted.
UPDATE backend.mail_templates SET subject = '{{nope}}' WHERE template_id = 'game.turn.digest';
SELECT pg_temp.turn(:'ann', :'running', t) FROM generate_series(12, 14) AS t \g /dev/null
SELECT pg_temp.advance('1 day') \g /dev/null
SELECT matches(array_to_string(pg_temp.digest(), ','), '^retrying 22023 [^,]*,retrying 22023 [^,]*,retrying 22023 ', 'a digest that cannot be made is tried again');
SELECT is((SELECT count(DISTINCT next_attempt_at) FROM backend.notification_routes WHERE is_digest AND status = 'retrying'), 1::bigint, 'all of it together');
UPDATE backend.mail_templates SET subject = 'Turns' WHERE template_id = 'game.turn.digest';
UPDATE backend.accounts SET turn_reminder = 'off' WHERE user_id = :'ann';
SELECT pg_temp.advance('5 seconds') \g /dev/null
SELECT is(pg_temp.digest(), ARRAY['skipped it is not wanted', 'skipped it is not wanted', 'skipped it is not wanted'], 'who does not want it any more does not get it');
INSERT INTO backend.notification_opt_outs (user_id, kind, channel) VALUES (:'ann', 'game.finished', 'email');
UPDATE backend.notification_routes AS r SET status = 'pending', next_attempt_at = backend.now() WHERE route_id = (pg_temp.route('broken')).route_id;
DELETE FROM backend.notification_dead_letters WHERE route_id = (pg_temp.route('broken')).route_id;
SELECT is(pg_temp.deliver(), ARRAY['game.finished skipped it is not wanted'], 'nor does who was to be told again');
UPDATE backend.accounts SET turn_reminder = 'each' WHERE user_id = :'ann';
UPDATE backend.device_sessions SET last_seen_at = backend.now() - interval '30 seconds' WHERE user_id = :'ann';
SELECT pg_temp.turn(:'ann', :'running', 15), pg_temp.advance('1 hour') \g /dev/null
SELECT is(pg_temp.deliver(), ARRAY['game.turn.ready skipped they have been seen since'], 'who was seen within the minute before may be there still');
UPDATE backend.device_sessions SET last_seen_at = NULL, created_at = backend.now() - interval '30 days' WHERE user_id = :'ann';
SELECT pg_temp.turn(:'ann', :'running', 16), pg_temp.advance('1 hour') \g /dev/null
UPDATE backend.memberships SET status = 'removed', ended_at = backend.now() WHERE user_id = :'ann' AND game_id = :'running';
SELECT is(pg_temp.deliver(), ARRAY['game.turn.ready skipped they do not play it any more'], 'who does not play it any more is not reminded');

-- What is old.
SELECT is_empty('SELECT * FROM backend.invariants_notifications', 'nothing is wrong after all this');
SELECT backend.notification_submit('nobody.knows', 'x', :'ann', '{}'), pg_temp.failed('waits', :'game') \g /dev/null
SELECT is(worker.notifications_purge(1000) + worker.malformed_intents_purge(1000), 0, 'what is not old is kept');
SELECT pg_temp.advance('31 days') \g /dev/null
SELECT is(worker.malformed_intents_purge(1000), 1, 'what was malformed is kept for a month');
SELECT is(worker.notifications_purge(3), 3, 'and what is done with, deleted in batches');
SELECT worker.notifications_purge(1000) \g /dev/null
SELECT set_eq(
    'SELECT idempotency_key FROM backend.notifications', ARRAY['eight', 'waits'], 'what was given up, and what still waits, stay');
SELECT pg_temp.advance('90 days') \g /dev/null
SELECT worker.notifications_purge(1000) \g /dev/null
SELECT set_eq('SELECT idempotency_key FROM backend.notifications', ARRAY['waits'], 'for some months; what waits stays for ever');

SELECT * FROM finish();
ROLLBACK;
