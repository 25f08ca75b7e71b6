-- Test galaxy-backend:backend/mail_rules

BEGIN;
SELECT plan(13);
\ir ../helpers.psql

SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('mail_give_up', 'volatile'), ('mail_resend', 'volatile'), ('mail_delivery_json', 'stable')) AS t(f, v);
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT backend.mail_resend(gen_random_uuid())', '42501', NULL, 'backend_api sends nothing again but through its door');
RESET ROLE;

CREATE FUNCTION pg_temp.delivery(p_id uuid) RETURNS backend.mail_deliveries LANGUAGE sql
RETURN (SELECT d FROM backend.mail_deliveries AS d WHERE d.delivery_id = p_id);
SELECT backend.mail_enqueue('auth.login_code', 'code', ARRAY['ann@example.org'], '{"code": "804713", "minutes": 10}') AS code,
       backend.mail_enqueue('game.started', 'game', ARRAY['ann@example.org'], '{"game_name": "Friday"}') AS game \gset
SELECT backend.mail_give_up(:'code', repeat('x', 2000)), backend.mail_give_up(:'game', 'refused') \g /dev/null
SELECT results_eq(
    'SELECT d.status, length(l.reason), p.body_text IS NULL
       FROM backend.mail_dead_letters AS l JOIN backend.mail_deliveries AS d USING (delivery_id) JOIN backend.mail_payloads AS p USING (payload_id) ORDER BY 2',
    $$VALUES ('dead_lettered', 7, false), ('dead_lettered', 1000, true)$$, 'what is given up is a dead letter with its reason, and a secret is forgotten');
SELECT set_eq(
    $$SELECT payload ->> 'delivery_id' AS d, payload ->> 'template_id' AS t FROM backend.notifications WHERE kind = 'mail.dead_lettered' AND user_id IS NULL$$,
    format($$VALUES (%L, 'auth.login_code'), (%L, 'game.started')$$, :'code', :'game'), 'administrators are told of each');
SELECT is((backend.mail_resend(:'game')).status, 'pending', 'a dead letter can be sent again');
SELECT backend.mail_give_up(:'game', 'refused again') \g /dev/null
UPDATE backend.mail_deliveries SET last_attempt_no = 1 WHERE delivery_id = :'game';
SELECT is((backend.mail_resend(:'game')).status, 'pending', 'however often');
SELECT backend.mail_give_up(:'game', 'refused again') \g /dev/null
SELECT is((SELECT count(*) FROM backend.notifications WHERE payload ->> 'delivery_id' = :'game'), 2::bigint, 'and administrators are told once for each attempt that was the last');
SELECT throws_ok(format($$SELECT backend.mail_give_up(%L, 'x')$$, gen_random_uuid()), 'P0002', NULL, 'a mail that is not there is a fault');
SELECT is(backend.mail_delivery_json(pg_temp.delivery(:'game')) ->> 'next_attempt_at', NULL, 'what is dead has no next attempt');
DELETE FROM backend.notification_routes;
DELETE FROM backend.notifications;
SELECT backend.mail_give_up(backend.mail_enqueue('game.started', 'many-' || n, ARRAY['ann@example.org'], '{"game_name": "Friday"}'), 'x') FROM generate_series(1, 30) AS n \g /dev/null
SELECT is((SELECT count(*) FROM backend.notifications), 20::bigint, 'when all is given up at once administrators are not told without end');
SELECT is_empty('SELECT * FROM backend.invariants_mail', 'nothing is wrong after all this');

SELECT * FROM finish();
ROLLBACK;
