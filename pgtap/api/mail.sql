-- Test galaxy-backend:api/mail

BEGIN;
SELECT plan(82);
\ir ../helpers.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], volatility text);
INSERT INTO functions VALUES
    ('mail_delivery_list', ARRAY['text', 'text[]', 'text', 'text', 'integer', 'text']::name[], 'stable'),
    ('mail_delivery_get', ARRAY['text', 'uuid']::name[], 'stable'),
    ('mail_attempt_list', ARRAY['text', 'uuid', 'integer', 'text']::name[], 'stable'),
    ('mail_dead_letter_list', ARRAY['text', 'text', 'integer', 'text']::name[], 'stable'),
    ('mail_delivery_resend', ARRAY['text', 'uuid']::name[], 'volatile'),
    ('mail_resend', ARRAY['text', 'uuid']::name[], 'volatile');
SELECT function_returns('api', name, arguments, 'text', format('%s() answers text', name)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
CREATE FUNCTION pg_temp.mail(p_key text, p_to text DEFAULT 'ann@example.org', p_template text DEFAULT 'game.started') RETURNS uuid LANGUAGE sql
RETURN backend.mail_enqueue(p_template, p_key, ARRAY[p_to], '{"game_name": "<Friday>", "code": "804713", "minutes": 10}', NULL, backend.now() + interval '10 minutes');
CREATE FUNCTION pg_temp.keys(p_page text) RETURNS text[] LANGUAGE sql
RETURN ARRAY(SELECT d.idempotency_key FROM jsonb_array_elements(p_page::jsonb -> 'items') WITH ORDINALITY AS i(item, n)
               JOIN backend.mail_deliveries AS d ON d.delivery_id = (i.item ->> 'delivery_id')::uuid ORDER BY i.n);
SELECT pg_temp.mail('one') AS one \gset
SELECT pg_temp.mail('two', 'bob@example.org') AS two \gset
SELECT pg_temp.mail('code', 'ann@example.org', 'auth.login_code') AS code \gset
SELECT FROM worker.mail_claim(3, 60, 0) \g /dev/null
SELECT worker.mail_report(:'one', 1, 'sent', NULL), worker.mail_report(:'two', 1, 'permanent', '550 no such user'), worker.mail_report(:'code', 1, 'transient', '451 later') \g /dev/null

-- Lists.
SET LOCAL ROLE backend_api;
SELECT api.mail_delivery_list('root', NULL, NULL, NULL, 50, NULL) AS all \gset
RESET ROLE;
SELECT is(pg_temp.keys(:'all'), ARRAY['code', 'two', 'one'], 'mail is listed, newest first');
SELECT is(
    :'all'::jsonb #> '{items,1}',
    jsonb_build_object('delivery_id', :'two', 'template_id', 'game.started', 'user_id', NULL, 'status', 'dead_lettered', 'attempts', 1, 'next_attempt_at', NULL,
                       'expires_at', backend.ts(backend.now() + interval '10 minutes'), 'recipients', '["bob@example.org"]'::jsonb, 'created_at', backend.ts(backend.now())),
    'with what is known of it');
SELECT isnt(:'all'::jsonb #>> '{items,0,next_attempt_at}', NULL, 'and when it is tried again, if it is');
SELECT is(pg_temp.keys(api.mail_delivery_list('root', s, t, r, 50, NULL)), e, d)
  FROM (VALUES
    (ARRAY['sent'], NULL, NULL, ARRAY['one'], 'by state'), (ARRAY['sent', 'retrying'], NULL, NULL, ARRAY['code', 'one'], 'by several states'),
    (NULL, 'auth.login_code', NULL, ARRAY['code'], 'by template'), (NULL, NULL, ' ANN@example.org ', ARRAY['code', 'one'], 'by recipient'),
    (NULL, NULL, 'nobody@example.org', '{}', 'by one who got none'), (NULL, NULL, 'nobody', '{}', 'or who is none'), (ARRAY['sent'], 'game.started', 'ann@example.org', ARRAY['one'], 'by all three')
  ) AS t(s, t, r, e, d);
SELECT api.mail_delivery_list('root', NULL, NULL, NULL, 2, NULL)::jsonb ->> 'next_cursor' AS cursor \gset
SELECT is(pg_temp.keys(api.mail_delivery_list('root', NULL, NULL, NULL, 2, :'cursor')), ARRAY['one'], 'in pages');
SELECT throws_ok(format($$SELECT api.mail_delivery_list('root', ARRAY['sent'], NULL, NULL, 2, %L)$$, :'cursor'), 'GX400', 'invalid_cursor', 'of one list');
SELECT is(
    api.mail_dead_letter_list('root', NULL, 50, NULL)::jsonb -> 'items',
    jsonb_build_array((:'all'::jsonb #> '{items,1}') || jsonb_build_object('dead_letter_reason', '550 no such user', 'dead_lettered_at', backend.ts(backend.now()))), 'dead letters say why');
SELECT is(pg_temp.keys(api.mail_dead_letter_list('root', 'auth.login_code', 50, NULL)), '{}', 'by template');
SELECT throws_ok(format($$SELECT api.mail_dead_letter_list('root', NULL, 2, %L)$$, :'cursor'), 'GX400', 'invalid_cursor', 'with cursors of their own');

-- One.
SELECT is(api.mail_delivery_get('root', :'two')::jsonb ->> 'subject', 'Your game has started', 'a mail is shown');
SELECT ok((m ->> 'body_text') ~ '<Friday>' AND (m ->> 'body_html') ~ '&lt;Friday&gt;' AND m ->> 'dead_letter_reason' = '550 no such user', 'with what it says, and why it was given up')
  FROM (SELECT api.mail_delivery_get('root', :'two')::jsonb AS m) AS t;
SELECT ok(m @> '{"body_text": null, "body_html": null, "dead_letter_reason": null, "status": "retrying"}' AND m::text !~ '804713', 'but not a code, while there is one')
  FROM (SELECT api.mail_delivery_get('root', :'code')::jsonb AS m) AS t;
UPDATE backend.mail_deliveries SET next_attempt_at = backend.now() WHERE delivery_id = :'code';
SELECT FROM worker.mail_claim(1, 60, 100) \g /dev/null
SELECT is(
    api.mail_attempt_list('root', :'code', 50, NULL)::jsonb -> 'items',
    jsonb_build_array(
        jsonb_build_object('attempt_no', 1, 'started_at', backend.ts(backend.now()), 'finished_at', backend.ts(backend.now()), 'outcome', 'transient', 'error', '451 later'),
        jsonb_build_object('attempt_no', 2, 'started_at', backend.ts(backend.now()), 'finished_at', NULL, 'outcome', 'outcome_unknown', 'error', NULL)),
    'attempts are listed, the first one first');
SELECT api.mail_attempt_list('root', :'code', 1, NULL)::jsonb ->> 'next_cursor' AS cursor \gset
SELECT is(api.mail_attempt_list('root', :'code', 1, :'cursor')::jsonb #> '{items,0,attempt_no}', '2', 'in pages');
SELECT throws_ok(format($$SELECT api.mail_attempt_list('root', %L, 1, %L)$$, d, c), 'GX400', 'invalid_cursor', 'of one mail')
  FROM (VALUES (:'two', :'cursor'), (:'code', '00'), (:'code', backend.cursor_make('mail_attempt_list:' || :'code', 'x'))) AS t(d, c);

-- Sent again.
CREATE FUNCTION pg_temp.resend(p_delivery_id uuid) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN api.mail_delivery_resend('root', p_delivery_id)::jsonb ->> 'status';
EXCEPTION WHEN SQLSTATE 'GX404' OR SQLSTATE 'GX409' THEN
    RETURN SQLERRM;
END;
$$;
-- As in a transaction that has not woken a worker yet.
SELECT set_config('backend.deferred_mail_deliver', '', true) \g /dev/null
SELECT count(*) AS jobs FROM procrastinate.procrastinate_jobs \gset
SELECT is(pg_temp.resend(:'two'), 'pending', 'a dead letter is sent again');
SELECT results_eq(
    format('SELECT status, attempts, last_attempt_no, next_attempt_at FROM backend.mail_deliveries WHERE delivery_id = %L', :'two'),
    $$VALUES ('pending', 0, 1, backend.now())$$, 'at once, with as many tries as a new mail, whose numbers go on');
SELECT is_empty('SELECT FROM backend.mail_dead_letters', 'it is dead no more');
SELECT is((SELECT count(*) FROM procrastinate.procrastinate_jobs) - :jobs, 1::bigint, 'a worker is woken');
SELECT is(pg_temp.resend(:'two'), 'pending', 'one that waits goes at once');
SELECT worker.mail_report(:'code', 2, 'transient', '451 later') \g /dev/null
SELECT is(pg_temp.resend(:'code'), 'pending', 'so does one that waits to be tried again');
SELECT is(pg_temp.resend(:'one'), 'already_sent', 'what was sent is not sent again');
SELECT is(pg_temp.resend(gen_random_uuid()), 'mail_delivery_not_found', 'nor what is not there');
SELECT pg_temp.mail('given up', 'ann@example.org', 'auth.login_code') AS given_up, pg_temp.mail('cancelled') AS cancelled, pg_temp.mail('late') AS late \gset
SELECT backend.mail_give_up(:'given_up', 'x') \g /dev/null
UPDATE backend.mail_deliveries SET status = 'cancelled' WHERE delivery_id = :'cancelled';
UPDATE backend.mail_deliveries SET expires_at = backend.now() WHERE delivery_id = :'late';
SELECT throws_ok(format($$SELECT api.mail_delivery_resend('root', %L)$$, :'given_up'), 'GX409', 'mail_erased', 'nor a code that is forgotten');
SELECT is(pg_temp.resend(:'late'), 'mail_erased', 'nor what would come too late');
SELECT throws_ok(format($$SELECT api.mail_delivery_resend('root', %L)$$, :'cancelled'), 'GX409', 'invalid_transition', 'nor what was cancelled');
SELECT is(api.mail_resend('root', :'two')::jsonb ->> 'status', 'pending', 'by the other path it is the same');
SELECT throws_ok(format($$SELECT api.mail_resend('root', %L)$$, :'one'), 'GX409', 'already_sent', 'in every respect');
SELECT bag_eq(
    'SELECT action, object_id FROM backend.audit_log',
    format($$VALUES ('mail_delivery_resend', %2$L), ('mail_delivery_resend', %2$L), ('mail_delivery_resend', %1$L), ('mail_resend', %2$L)$$, :'code', :'two'), 'each that was done is in the log');

-- For administrators.
SELECT throws_ok(c, 'GX401', 'unauthorized', 'all this is for administrators')
  FROM unnest(ARRAY[$$SELECT api.mail_delivery_list('eve', NULL, NULL, NULL, 1, NULL)$$, $$SELECT api.mail_delivery_get('eve', gen_random_uuid())$$,
                    $$SELECT api.mail_attempt_list('eve', gen_random_uuid(), 1, NULL)$$, $$SELECT api.mail_dead_letter_list('eve', NULL, 1, NULL)$$,
                    $$SELECT api.mail_delivery_resend('eve', gen_random_uuid())$$, $$SELECT api.mail_resend('eve', gen_random_uuid())$$]) AS c;
SELECT throws_ok(c, 'GX404', 'mail_delivery_not_found', 'what is not there is not found')
  FROM unnest(ARRAY[$$SELECT api.mail_delivery_get('root', gen_random_uuid())$$, $$SELECT api.mail_attempt_list('root', gen_random_uuid(), 1, NULL)$$]) AS c;
SELECT is_empty('SELECT * FROM backend.invariants_mail', 'nothing is wrong after all this');

SELECT * FROM finish();
ROLLBACK;
