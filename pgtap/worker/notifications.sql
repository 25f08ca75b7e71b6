-- Test galaxy-backend:worker/notifications

BEGIN;
SELECT plan(35);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
SELECT function_returns('worker', 'notification_routes_deliver', ARRAY['integer', 'text'], 'setof record', 'routes are delivered in batches');
SELECT volatility_is('worker', 'notification_routes_deliver', ARRAY['integer', 'text'], 'volatile', 'notification_routes_deliver() is VOLATILE');
SELECT is_definer('worker', 'notification_routes_deliver', ARRAY['integer', 'text'], 'notification_routes_deliver() has its owner''s rights');
SELECT function_privs_are('worker', 'notification_routes_deliver', ARRAY['integer', 'text'], r, p::name[], format('%s may execute it: %s', r, p <> '{}'))
  FROM (VALUES ('backend_api', '{}'), ('backend_worker', '{EXECUTE}'), ('backend_push', '{}')) AS t(r, p);

SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob') AS bob \gset
SELECT pg_temp.game(:'ann', '{"game_name": "Friday <night>"}') AS game \gset
CREATE FUNCTION pg_temp.deliver(p_limit integer DEFAULT 10, p_admin_email text DEFAULT 'admin@example.org') RETURNS text[]
LANGUAGE plpgsql SET role = backend_worker
AS $$
BEGIN
    RETURN ARRAY(SELECT concat_ws(' ', d.kind, d.status, d.error) FROM worker.notification_routes_deliver(p_limit, p_admin_email) AS d);
END;
$$;
CREATE FUNCTION pg_temp.route(p_key text) RETURNS backend.notification_routes
LANGUAGE sql
RETURN (SELECT r FROM backend.notification_routes AS r JOIN backend.notifications AS n USING (notification_id) WHERE n.idempotency_key = p_key AND r.channel = 'email');
SELECT is(pg_temp.deliver(), '{}', 'where nothing waits nothing is delivered');

-- Delivered.
SELECT backend.notification_submit('game.started', 'one', :'ann', jsonb_build_object('game_id', :'game')) \g /dev/null
SELECT is(pg_temp.deliver(0), '{}', 'nor where nothing is asked for');
SELECT is(pg_temp.deliver(), ARRAY['game.started delivered'], 'a route is delivered');
SELECT results_eq(
    $$SELECT status, attempts, last_error FROM pg_temp.route('one')$$, $$VALUES ('delivered', 1, NULL)$$, 'and says so');
SELECT results_eq(
    $$SELECT d.template_id, d.idempotency_key, d.user_id, r.address, p.subject
        FROM backend.mail_deliveries AS d JOIN backend.mail_recipients AS r USING (delivery_id) JOIN backend.mail_payloads AS p USING (payload_id)$$,
    format($$VALUES ('game.started', (pg_temp.route('one')).route_id::text, %L::uuid, 'ann@example.org', 'Friday <night> has started')$$, :'ann'),
    'as a mail to the person under the route''s id, with the game''s name');
SELECT ok((SELECT p.body_html ~ 'Friday &lt;night&gt;' FROM backend.mail_payloads AS p), 'which is escaped in HTML');
SELECT is(pg_temp.deliver(), '{}', 'it is delivered once');
SELECT is(
    backend.mail_enqueue('game.started', (pg_temp.route('one')).route_id::text, ARRAY['x@example.org'], '{}'), (SELECT delivery_id FROM backend.mail_deliveries),
    'even if it were again, it would be the same mail');

-- Administrators.
SELECT backend.notification_submit('runtime.container_start_failed', 'two', NULL, jsonb_build_object('game_id', :'game')) \g /dev/null
SELECT is(pg_temp.deliver(), ARRAY['runtime.container_start_failed delivered'], 'administrators are told');
SELECT results_eq(
    $$SELECT r.address, d.user_id FROM backend.mail_deliveries AS d JOIN backend.mail_recipients AS r USING (delivery_id) WHERE d.template_id = 'runtime.container_start_failed'$$,
    $$VALUES ('admin@example.org', NULL::uuid)$$, 'at their address');
SELECT backend.notification_submit('runtime.container_start_failed', 'three', NULL, jsonb_build_object('game_id', :'game')) \g /dev/null
SELECT is(pg_temp.deliver(10, NULL), ARRAY['runtime.container_start_failed skipped'], 'where there is none it is skipped');
SELECT is((pg_temp.route('three')).status, 'skipped', 'and says so');
SELECT is(pg_temp.deliver(), '{}', 'for good');
SELECT backend.notification_submit('mail.dead_lettered', 'four', NULL, jsonb_build_object('delivery_id', :'game', 'template_id', 'x')) \g /dev/null
SELECT is(pg_temp.deliver(), ARRAY['mail.dead_lettered delivered'], 'what is of no game needs none');
SELECT backend.notification_submit('runtime.image_pull_failed', 'five', NULL, jsonb_build_object('game_id', gen_random_uuid(), 'image_ref', 'e:1')) \g /dev/null
SELECT is(pg_temp.deliver(), ARRAY['runtime.image_pull_failed delivered'], 'nor one that is there still');

-- Nobody to tell.
SELECT backend.notification_submit('game.started', 'six', :'bob', jsonb_build_object('game_id', :'game')) \g /dev/null
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'bob';
SELECT is(pg_temp.deliver(), ARRAY['game.started skipped'], 'who is gone is not told');

-- Tried again, and given up; what is beside it goes out.
UPDATE backend.mail_templates SET subject = '{{nothing}}' WHERE template_id = 'game.finished';
SELECT backend.notification_submit(k, k, :'ann', jsonb_build_object('game_id', :'game')) FROM unnest(ARRAY['game.finished', 'game.started']) AS k \g /dev/null
SELECT is(
    pg_temp.deliver(), ARRAY['game.finished retrying 22023 a mail needs the value nothing', 'game.started delivered'], 'a route that fails is tried again, and harms no other');
SELECT results_eq(
    $$SELECT status, attempts, last_error, next_attempt_at BETWEEN backend.now() + interval '2.5 seconds' AND backend.now() + interval '5 seconds' FROM pg_temp.route('game.finished')$$,
    $$VALUES ('retrying', 1, '22023 a mail needs the value nothing', true)$$, 'in five seconds, or up to half less');
SELECT is(pg_temp.deliver(), '{}', 'not before');
SELECT is((SELECT count(*) FROM backend.mail_deliveries WHERE template_id = 'game.finished'), 0::bigint, 'nothing half done is left');
CREATE TEMPORARY TABLE waits (attempt integer, wait interval, said text[]);
DO $$
BEGIN
    FOR i IN 2..8 LOOP
        PERFORM pg_temp.advance('1 hour');
        INSERT INTO waits SELECT i, NULL, pg_temp.deliver();
        UPDATE waits SET wait = (SELECT next_attempt_at - backend.now() FROM pg_temp.route('game.finished')) WHERE attempt = i;
    END LOOP;
END;
$$;
SELECT is_empty(
    $$SELECT attempt, wait FROM waits WHERE wait NOT BETWEEN interval '2.5 seconds' * 2 ^ (attempt - 1) AND interval '5 seconds' * 2 ^ (attempt - 1)$$,
    'each wait is twice the one before, less up to a half');
SELECT is(
    (SELECT array_agg(split_part(said[1], ' ', 2) ORDER BY attempt) FROM waits),
    ARRAY['retrying', 'retrying', 'retrying', 'retrying', 'retrying', 'retrying', 'dead_lettered'], 'the eighth failure is the last');
SELECT pg_temp.advance('1 day') \g /dev/null
SELECT is(pg_temp.deliver(), '{}', 'then it is not tried any more');
UPDATE backend.mail_templates SET subject = 'Over' WHERE template_id = 'game.finished';
UPDATE backend.notification_routes SET status = 'pending', attempts = 0, next_attempt_at = backend.now() WHERE route_id = (pg_temp.route('game.finished')).route_id;
SELECT is(pg_temp.deliver(), ARRAY['game.finished delivered'], 'unless an administrator tries it again');
SET LOCAL backend.notification_max_attempts = '1';
SELECT backend.notification_submit('game.started', 'seven', :'ann', jsonb_build_object('game_id', :'game')) \g /dev/null
SELECT is(pg_temp.deliver(10, 'x'), ARRAY['game.started delivered'], 'a person''s mail does not go to the administrators');
SELECT backend.notification_submit('runtime.container_start_failed', 'eight', NULL, jsonb_build_object('game_id', :'game')) \g /dev/null
SELECT is(
    (pg_temp.deliver(10, 'not an address'))[1] ~ '^runtime.container_start_failed dead_lettered 23514 ', true, 'how often is a setting; a bad address is a failure like any other');
RESET backend.notification_max_attempts;

-- In their order.
SELECT backend.notification_submit('game.started', 'late', :'ann', jsonb_build_object('game_id', :'game')),
       backend.notification_submit('game.finished', 'early', :'ann', jsonb_build_object('game_id', :'game')) \g /dev/null
UPDATE backend.notification_routes SET next_attempt_at = backend.now() - interval '1 second' WHERE route_id = (pg_temp.route('early')).route_id;
SELECT is(pg_temp.deliver(1), ARRAY['game.finished delivered'], 'what is due for longer goes first, no more than is asked for');
SELECT is(pg_temp.deliver(1), ARRAY['game.started delivered'], 'then the next');
SELECT is_empty('SELECT * FROM backend.invariants_notifications', 'nothing is wrong after all this');

SELECT * FROM finish();
ROLLBACK;
