-- Test galaxy-backend:api/notifications

BEGIN;
SELECT plan(61);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], volatility text);
INSERT INTO functions VALUES
    ('notification_list', ARRAY['text', 'text', 'uuid', 'text', 'integer', 'text']::name[], 'stable'),
    ('notification_get', ARRAY['text', 'uuid']::name[], 'stable'),
    ('notification_dead_letter_list', ARRAY['text', 'text', 'integer', 'text']::name[], 'stable'),
    ('notification_dead_letter_retry', ARRAY['text', 'uuid']::name[], 'volatile'),
    ('notification_malformed_list', ARRAY['text', 'integer', 'text']::name[], 'stable');
SELECT function_returns('api', name, arguments, 'text', format('%s() answers text', name)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob') AS bob, '0197f3a2-0000-7000-8000-000000000001' AS game \gset
SET LOCAL backend.request_id = 'request-1';
SET LOCAL backend.notification_max_attempts = '1';
UPDATE backend.mail_templates SET subject = '{{nothing}}' WHERE template_id = 'game.finished';
SELECT backend.notification_submit('game.started', 'one', :'ann', jsonb_build_object('game_id', :'game')) AS one \gset
SELECT backend.notification_submit('game.finished', 'two', :'bob', jsonb_build_object('game_id', :'game')) AS two \gset
SELECT backend.notification_submit('runtime.container_start_failed', 'three', NULL, jsonb_build_object('game_id', :'game')) AS three \gset
SELECT backend.notification_submit('game.started', 'four', :'ann', '{"game_id": 4}') \g /dev/null
CREATE FUNCTION pg_temp.keys(p_page text) RETURNS text[] LANGUAGE sql
RETURN ARRAY(SELECT i.item ->> 'idempotency_key' FROM jsonb_array_elements(p_page::jsonb -> 'items') WITH ORDINALITY AS i(item, n) ORDER BY i.n);

-- Lists.
SET LOCAL ROLE backend_api;
SELECT api.notification_list('root', NULL, NULL, NULL, 50, NULL) AS all \gset
RESET ROLE;
SELECT is(pg_temp.keys(:'all'), ARRAY['three', 'two', 'one'], 'notifications are listed, newest first');
SELECT is(
    :'all'::jsonb #> '{items,2}',
    jsonb_build_object('notification_id', :'one', 'kind', 'game.started', 'idempotency_key', 'one', 'user_id', :'ann', 'payload', jsonb_build_object('game_id', :'game'),
                       'request_id', 'request-1', 'trace_id', NULL, 'created_at', backend.ts(backend.now())), 'with what is known of them');
SELECT is(pg_temp.keys(api.notification_list('root', k, u, i, 50, NULL)), e, d)
  FROM (VALUES ('game.started', NULL, NULL, ARRAY['one'], 'by kind'), (NULL, :'bob'::uuid, NULL, ARRAY['two'], 'by person'), (NULL, NULL, 'three', ARRAY['three'], 'by key'),
               ('game.started', :'bob', NULL, '{}', 'by all of it'), ('nobody.knows', NULL, NULL, '{}', 'also where there is none')) AS t(k, u, i, e, d);
SELECT api.notification_list('root', NULL, NULL, NULL, 2, NULL)::jsonb ->> 'next_cursor' AS cursor \gset
SELECT is(pg_temp.keys(api.notification_list('root', NULL, NULL, NULL, 2, :'cursor')), ARRAY['one'], 'in pages');
SELECT throws_ok(format($$SELECT api.notification_list('root', 'game.started', NULL, NULL, 2, %L)$$, :'cursor'), 'GX400', 'invalid_cursor', 'of one list');

-- One.
SELECT is(
    (SELECT jsonb_agg(r - '{route_id,delivery_id}'::text[] ORDER BY r ->> 'channel') FROM jsonb_array_elements(api.notification_get('root', :'one')::jsonb -> 'routes') AS r),
    '[{"channel": "email", "status": "delivered", "attempts": 1, "last_error": null, "next_attempt_at": null},
      {"channel": "push", "status": "delivered", "attempts": 1, "last_error": null, "next_attempt_at": null}]', 'a notification is shown with its routes');
SELECT is(
    (SELECT array_agg(d.idempotency_key) FROM jsonb_array_elements(api.notification_get('root', :'one')::jsonb -> 'routes') AS r
       JOIN backend.mail_deliveries AS d ON d.delivery_id = (r ->> 'delivery_id')::uuid),
    ARRAY(SELECT route_id::text FROM backend.notification_routes WHERE notification_id = :'one' AND channel = 'email'), 'and the mail that one became');
SELECT isnt(api.notification_get('root', :'three')::jsonb #>> '{routes,0,next_attempt_at}', NULL, 'what waits says until when');

-- Dead letters.
SELECT route_id AS dead FROM backend.notification_routes WHERE notification_id = :'two' AND channel = 'email' \gset
SELECT is(
    api.notification_dead_letter_list('root', NULL, 50, NULL)::jsonb -> 'items',
    jsonb_build_array(jsonb_build_object('route_id', :'dead', 'notification_id', :'two', 'kind', 'game.finished', 'user_id', :'bob', 'channel', 'email', 'attempts', 1,
                                         'reason', '22023 a mail needs the value nothing', 'dead_lettered_at', backend.ts(backend.now()))), 'what was given up is listed, and why');
SELECT is(api.notification_dead_letter_list('root', 'game.started', 50, NULL)::jsonb -> 'items', '[]', 'by kind');
SELECT throws_ok(format($$SELECT api.notification_dead_letter_list('root', NULL, 2, %L)$$, :'cursor'), 'GX400', 'invalid_cursor', 'with cursors of its own');
-- As in a transaction that has not woken a worker yet.
SELECT set_config('backend.deferred_notification_deliver', '', true) \g /dev/null
SELECT count(*) AS jobs FROM procrastinate.procrastinate_jobs \gset
SELECT is(
    (SELECT jsonb_agg(r -> 'status' ORDER BY r ->> 'channel') FROM jsonb_array_elements(api.notification_dead_letter_retry('root', :'dead')::jsonb -> 'routes') AS r),
    '["pending", "delivered"]', 'it is tried again');
SELECT is((SELECT count(*) FROM procrastinate.procrastinate_jobs) - :jobs, 1::bigint, 'by a worker that is woken');
SELECT is_empty('SELECT FROM backend.notification_dead_letters', 'and is not given up any more');
SELECT throws_ok(format($$SELECT api.notification_dead_letter_retry('root', %L)$$, :'dead'), 'GX409', 'invalid_transition', 'once');
UPDATE backend.mail_templates SET subject = 'Over' WHERE template_id = 'game.finished';
SELECT is(
    (SELECT string_agg(d.status, ',') FROM worker.notification_routes_deliver(10, 'admin@example.org') AS d WHERE d.route_id = :'dead'), 'delivered', 'and then goes out');
SELECT throws_ok($$SELECT api.notification_dead_letter_retry('root', gen_random_uuid())$$, 'GX404', 'notification_route_not_found', 'what is not there is not');
SELECT results_eq('SELECT action, object_type, object_id FROM backend.audit_log', format($$VALUES ('notification_dead_letter_retry', 'notification_route', %L)$$, :'dead'), 'it is in the log');

-- Malformed.
SELECT is(
    (api.notification_malformed_list('root', 50, NULL)::jsonb #> '{items,0}') - 'malformed_id',
    jsonb_build_object('kind', 'game.started', 'idempotency_key', 'four', 'user_id', :'ann', 'payload', '{"game_id": 4}'::jsonb,
                       'reason', 'the field game_id is not of type uuid', 'created_at', backend.ts(backend.now())), 'what was malformed is listed, and why');
SELECT throws_ok(format($$SELECT api.notification_malformed_list('root', 2, %L)$$, :'cursor'), 'GX400', 'invalid_cursor', 'with cursors of its own');

-- For administrators.
SELECT throws_ok(c, 'GX401', 'unauthorized', 'all this is for administrators')
  FROM unnest(ARRAY[$$SELECT api.notification_list('eve', NULL, NULL, NULL, 1, NULL)$$, $$SELECT api.notification_get('eve', gen_random_uuid())$$,
                    $$SELECT api.notification_dead_letter_list('eve', NULL, 1, NULL)$$, $$SELECT api.notification_dead_letter_retry('eve', gen_random_uuid())$$,
                    $$SELECT api.notification_malformed_list('eve', 1, NULL)$$]) AS c;
SELECT throws_ok($$SELECT api.notification_get('root', gen_random_uuid())$$, 'GX404', 'notification_not_found', 'what is not there is not found');
SELECT is_empty('SELECT * FROM backend.invariants_notifications', 'nothing is wrong after all this');

SELECT * FROM finish();
ROLLBACK;
