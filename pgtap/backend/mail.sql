-- Test galaxy-backend:backend/mail

BEGIN;
SELECT plan(112);
\ir ../helpers.psql

-- Attributes.
SELECT has_table('backend', t, format('there is %s', t))
  FROM unnest(ARRAY['mail_templates', 'mail_payloads', 'mail_deliveries', 'mail_recipients', 'mail_attempts', 'mail_dead_letters']) AS t;
SELECT fk_ok('backend', t, c, 'backend', r, k, format('%s.%s is of %s', t, c, r))
  FROM (VALUES
    ('mail_deliveries', 'template_id', 'mail_templates', 'template_id'),
    ('mail_deliveries', 'payload_id', 'mail_payloads', 'payload_id'),
    ('mail_deliveries', 'user_id', 'accounts', 'user_id'),
    ('mail_recipients', 'delivery_id', 'mail_deliveries', 'delivery_id'),
    ('mail_attempts', 'delivery_id', 'mail_deliveries', 'delivery_id'),
    ('mail_dead_letters', 'delivery_id', 'mail_deliveries', 'delivery_id')) AS t(t, c, r, k);
SELECT col_is_pk('backend', t, c, format('%s has its key', t))
  FROM (VALUES ('mail_templates', ARRAY['template_id']), ('mail_recipients', ARRAY['delivery_id', 'address']),
               ('mail_attempts', ARRAY['delivery_id', 'attempt_no']), ('mail_dead_letters', ARRAY['delivery_id'])) AS t(t, c);
SELECT col_not_null('backend', t, c, format('%s.%s is always told', t, c))
  FROM (VALUES
    ('mail_templates', 'subject'), ('mail_templates', 'body_text'), ('mail_templates', 'body_html'), ('mail_templates', 'is_secret'),
    ('mail_templates', 'priority'), ('mail_payloads', 'subject'), ('mail_deliveries', 'template_id'), ('mail_deliveries', 'idempotency_key'),
    ('mail_deliveries', 'payload_id'), ('mail_deliveries', 'status'), ('mail_deliveries', 'priority'), ('mail_deliveries', 'attempts'),
    ('mail_deliveries', 'last_attempt_no'), ('mail_deliveries', 'next_attempt_at'), ('mail_attempts', 'outcome'),
    ('mail_attempts', 'started_at'), ('mail_dead_letters', 'reason')) AS t(t, c);
SELECT has_index('backend', 'mail_deliveries', 'mail_deliveries_due', ARRAY['priority', 'next_attempt_at'], 'what is due is found in the order of sending');
SELECT is(
    (SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indexrelid = 'backend.mail_deliveries_due'::regclass),
    $$(status = ANY (ARRAY['pending'::text, 'retrying'::text]))$$, 'what is done with is not in the way');
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('html_escape', 'immutable'), ('mail_render', 'immutable'), ('mail_enqueue', 'volatile'), ('mail_erase', 'volatile')) AS t(f, v);

-- Privileges.
SET LOCAL ROLE backend_worker;
SELECT throws_ok('SELECT FROM backend.mail_payloads', '42501', NULL, 'backend_worker reads a mail only when it has claimed it');
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.mail_enqueue('auth.login_code', 'x', ARRAY['a@example.org'], '{}')$$, '42501', NULL,
    'backend_api sends no mail that is not the effect of what it may do');
RESET ROLE;

-- The machine.
SELECT set_eq(
    $$SELECT action, from_state, to_state FROM backend.state_transitions WHERE machine = 'mail_delivery'$$,
    $$VALUES ('enqueue', NULL, 'pending'),
             ('report-sent', 'pending', 'sent'), ('report-sent', 'retrying', 'sent'), ('report-sent', 'dead_lettered', 'sent'), ('report-transient', 'pending', 'retrying'), ('report-transient', 'retrying', 'retrying'),
             ('report-permanent', 'pending', 'dead_lettered'), ('report-permanent', 'retrying', 'dead_lettered'),
             ('cancel', 'pending', 'cancelled'), ('cancel', 'retrying', 'cancelled'),
             ('expire', 'pending', 'expired'), ('expire', 'retrying', 'expired'),
             ('resend', 'pending', 'pending'), ('resend', 'retrying', 'pending'), ('resend', 'dead_lettered', 'pending')$$,
    'a mail is sent, tried again, given up, cancelled, dropped or sent again');

-- The templates.
SELECT results_eq(
    $$SELECT template_id, priority, is_secret FROM backend.mail_templates WHERE template_id = 'auth.login_code'$$,
    $$VALUES ('auth.login_code', 100, true)$$, 'a sign-in code is urgent and secret');
SELECT is_empty(
    $$SELECT template_id FROM backend.mail_templates WHERE subject ~ '[\r\n]' OR subject = '' OR body_text = '' OR body_html !~ '^<!doctype html>'$$,
    'every template has a subject of one line, a text and an HTML alternative');
SELECT is_empty(
    $$SELECT template_id, v FROM backend.mail_templates, regexp_matches(body_text, '\{\{([a-z_]+)\}\}', 'g') AS v
      EXCEPT SELECT template_id, v FROM backend.mail_templates, regexp_matches(body_html, '\{\{([a-z_]+)\}\}', 'g') AS v$$,
    'the two say the same values');

-- Rendering.
SELECT is(backend.html_escape($$<a href="x">'&'</a>$$), '&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;', 'text is escaped in HTML');
SELECT is(backend.mail_render('Hi {{name}}, {{name}}!', '{"name": "Ann"}', false), 'Hi Ann, Ann!', 'values are put in');
SELECT is(backend.mail_render('{{a}}{{b}}', '{"a": "{{b}}", "b": "2"}', false), '{{b}}2', 'what a value contains is not looked at again');
SELECT is(backend.mail_render('{{a}}', '{"a": "<b>"}', true), '&lt;b&gt;', 'in HTML they are escaped');
SELECT is(backend.mail_render('{{a}}', '{"a": "<b>"}', false), '<b>', 'in text they are not');
SELECT is(backend.mail_render('{{n}} {{t}}', '{"n": 10, "t": true}', false), '10 true', 'numbers are values too');
SELECT is(backend.mail_render('{{{{a}}}} { {a}} {{A}} {{}}', '{"a": "1"}', false), '{{1}} { {a}} {{A}} {{}}', 'only what is exactly a value''s place is replaced');
SELECT is(backend.mail_render('none', '{}', false), 'none', 'a template needs no value');
SELECT throws_ok($$SELECT backend.mail_render('{{a}}', '{}', false)$$, '22023', 'a mail needs the value a', 'a value that is missing is a fault of ours');
SELECT throws_ok($$SELECT backend.mail_render('{{a}}', '{"a": null}', false)$$, '22023', 'a mail needs the value a', 'and so is null');

-- Enqueuing.
INSERT INTO backend.mail_templates (template_id, subject, body_text, body_html, priority)
VALUES ('test.hello', 'Hello {{name}}', 'Dear {{name}}', '<!doctype html><p>Dear {{name}}</p>', 7);
SELECT a.user_id AS ann FROM backend.account_create('email', 'ann@example.org', 'ann@example.org', 'en', 'UTC', NULL) AS a \gset
SELECT backend.mail_enqueue('test.hello', 'key-1', ARRAY['ann@example.org', 'bob@example.org'], '{"name": "A & B"}', :'ann', backend.now() + interval '1 hour') AS mail \gset
SELECT results_eq(
    format('SELECT template_id, idempotency_key, user_id, status, priority, attempts, last_attempt_no, next_attempt_at, lease_until, expires_at
              FROM backend.mail_deliveries WHERE delivery_id = %L', :'mail'),
    format($$VALUES ('test.hello', 'key-1', %L::uuid, 'pending', 7, 0, 0, backend.now(), NULL::timestamptz, backend.now() + interval '1 hour')$$, :'ann'),
    'a mail is stored, due at once, with its template''s priority');
SELECT results_eq(
    format('SELECT subject, body_text, body_html, erased_at FROM backend.mail_payloads JOIN backend.mail_deliveries USING (payload_id)
             WHERE delivery_id = %L', :'mail'),
    $$VALUES ('Hello A & B', 'Dear A & B', '<!doctype html><p>Dear A &amp; B</p>', NULL::timestamptz)$$, 'it is rendered there and then');
SELECT set_eq(
    format('SELECT address FROM backend.mail_recipients WHERE delivery_id = %L', :'mail'), ARRAY['ann@example.org', 'bob@example.org'], 'to its recipients');
SELECT results_eq(
    $$SELECT queue_name::text, task_name::text, lock, priority, queueing_lock FROM procrastinate.procrastinate_jobs$$,
    $$VALUES ('mail', 'mail_deliver', NULL::text, 7, NULL::text)$$, 'and a worker is woken, with a job of the same priority');
SELECT is(
    backend.mail_enqueue('test.hello', 'key-1', ARRAY['eve@example.org'], '{"name": "E"}'), :'mail'::uuid, 'the same key again is the same mail');
SELECT is(
    (SELECT count(*) FROM backend.mail_recipients) + (SELECT count(*) FROM backend.mail_payloads) + (SELECT count(*) FROM procrastinate.procrastinate_jobs),
    2 + 1 + 1::bigint, 'of which nothing is stored twice');
SELECT isnt(backend.mail_enqueue('auth.login_code', 'key-1', ARRAY['ann@example.org'], '{"code": "1", "minutes": 2}'), :'mail'::uuid,
    'the same key of another template is another mail');
SELECT backend.mail_enqueue('test.hello', 'key-2', ARRAY['a@example.org'], E'{"name": "x\\r\\nBcc: eve@example.org\\u0007"}') \g /dev/null
SELECT is(
    (SELECT p.subject FROM backend.mail_payloads AS p JOIN backend.mail_deliveries AS d USING (payload_id) WHERE d.idempotency_key = 'key-2'),
    'Hello x Bcc: eve@example.org ', 'a line break of a value begins no header');
SELECT backend.mail_enqueue('test.hello', 'key-3', ARRAY['a@example.org'], jsonb_build_object('name', repeat('x', 600))) \g /dev/null
SELECT is(
    (SELECT length(p.subject) FROM backend.mail_payloads AS p JOIN backend.mail_deliveries AS d USING (payload_id) WHERE d.idempotency_key = 'key-3'),
    500, 'a subject is cut where it would be too long');
SELECT throws_ok($$SELECT backend.mail_enqueue('no.such', 'x', ARRAY['a@example.org'], '{}')$$, 'P0002', NULL, 'a template that is not there is a fault');
SELECT throws_ok($$SELECT backend.mail_enqueue('test.hello', 'x', ARRAY['a@example.org'], '{}')$$, '22023', NULL, 'and so is a value that is missing');
SELECT throws_ok(format($$SELECT backend.mail_enqueue('test.hello', 'x', %L, '{"name": "x"}')$$, r), '22023', 'a mail needs a recipient', 'and nobody to send it to')
  FROM unnest(ARRAY['{}', NULL]) AS r;
SELECT throws_ok($$SELECT backend.mail_enqueue('test.hello', 'x', ARRAY['nobody'], '{"name": "x"}')$$, '23514', NULL, 'and what is no address');
SELECT is_empty($$SELECT FROM backend.mail_deliveries WHERE idempotency_key = 'x'$$, 'which leave nothing behind');

-- Erasing.
SELECT delivery_id AS secret FROM backend.mail_deliveries WHERE template_id = 'auth.login_code' \gset
SELECT backend.mail_erase(:'mail'), backend.mail_erase(:'secret') \g /dev/null
SELECT results_eq(
    'SELECT d.template_id, p.body_text IS NULL, p.body_html IS NULL, p.erased_at FROM backend.mail_deliveries AS d JOIN backend.mail_payloads AS p USING (payload_id)
      WHERE d.idempotency_key = ''key-1'' ORDER BY 1',
    $$VALUES ('auth.login_code', true, true, backend.now()), ('test.hello', false, false, NULL::timestamptz)$$, 'a secret is erased, any other mail is kept');
UPDATE backend.clock SET clock_offset = '1 hour';
SELECT backend.mail_erase(:'secret') \g /dev/null
SELECT is(
    (SELECT p.erased_at FROM backend.mail_deliveries AS d JOIN backend.mail_payloads AS p USING (payload_id) WHERE d.delivery_id = :'secret'),
    transaction_timestamp(), 'erasing again changes nothing');
UPDATE backend.clock SET clock_offset = '0';

-- Constraints.
SELECT is(pg_temp.violated(format('INSERT INTO backend.%s', replace(v, ':mail', quote_literal(:'mail')))), c, d)
  FROM (VALUES
    ($$mail_payloads (subject, body_text, body_html) VALUES (E'a\nb', 'x', 'x')$$, 'mail_payloads_subject_is_one_line', 'a subject is one line'),
    ($$mail_payloads (subject, body_text, body_html) VALUES (E'a\u007fb', 'x', 'x')$$, 'mail_payloads_subject_is_one_line', 'a subject has no control characters'),
    ($$mail_payloads (subject, body_text, body_html) VALUES (E'a\u0085b', 'x', 'x')$$, 'mail_payloads_subject_is_one_line', 'nor those beyond ASCII'),
    ($$mail_payloads (subject, body_text, body_html) VALUES (E'a\u2028b', 'x', 'x')$$, 'mail_payloads_subject_is_one_line', 'nor a line break of Unicode'),
    (format($$mail_payloads (subject, body_text, body_html) VALUES (%L, 'x', 'x')$$, repeat('x', 501)), 'mail_payloads_subject_is_one_line', 'a subject is not too long'),
    ($$mail_payloads (subject, body_text, body_html) VALUES ('a', NULL, 'x')$$, 'mail_payloads_erased_has_no_body', 'a mail has a text'),
    ($$mail_payloads (subject, body_text, body_html) VALUES ('a', 'x', NULL)$$, 'mail_payloads_erased_has_no_body', 'and an HTML alternative'),
    ($$mail_payloads (subject, body_text, body_html, erased_at) VALUES ('a', 'x', 'x', now())$$, 'mail_payloads_erased_has_no_body', 'what is erased is gone'),
    ($$mail_deliveries (template_id, idempotency_key, payload_id, priority) SELECT template_id, idempotency_key, payload_id, 0 FROM backend.mail_deliveries LIMIT 1$$,
        'mail_deliveries_one_per_template_and_key', 'a key of a template is one mail'),
    ($$mail_deliveries (template_id, idempotency_key, payload_id, priority) SELECT 'no.such', 'y', payload_id, 0 FROM backend.mail_payloads LIMIT 1$$,
        'mail_deliveries_template_id_fkey', 'a mail is of a template there is'),
    ($$mail_recipients VALUES (:mail, 'a b@example.org')$$, 'mail_recipients_address_is_plain', 'an address has no space'),
    ($$mail_recipients VALUES (:mail, E'a@example.org\nBcc: x@example.org')$$, 'mail_recipients_address_is_plain', 'an address is one line'),
    ($$mail_recipients VALUES (:mail, 'a@example.org, b@example.org')$$, 'mail_recipients_address_is_plain', 'an address is one'),
    ($$mail_recipients VALUES (:mail, '<a@example.org>')$$, 'mail_recipients_address_is_plain', 'an address is bare'),
    ($$mail_recipients VALUES (:mail, 'example.org')$$, 'mail_recipients_address_is_plain', 'an address has an @'),
    ($$mail_recipients VALUES (:mail, 'jürgen@example.org')$$, 'mail_recipients_address_is_plain', 'an address is ASCII'),
    (format($$mail_recipients VALUES (:mail, %L)$$, repeat('x', 65) || '@example.org'), 'mail_recipients_address_is_plain', 'its left side is not too long'),
    (format($$mail_recipients VALUES (:mail, %L)$$, 'x@' || repeat('x.', 126) || 'x'), 'mail_recipients_address_is_plain', 'an address is not too long'),
    ($$mail_recipients VALUES (:mail, 'ann@example.org')$$, 'mail_recipients_pkey', 'a mail goes to an address once'),
    ($$mail_attempts (delivery_id, attempt_no, outcome) VALUES (:mail, 1, 'lost')$$, 'mail_attempts_outcome_is_known', 'an outcome is known'),
    ($$mail_attempts (delivery_id, attempt_no) VALUES (:mail, 1), (:mail, 1)$$, 'mail_attempts_pkey', 'an attempt''s number is used once')
  ) AS t(v, c, d);
INSERT INTO backend.mail_attempts (delivery_id, attempt_no) VALUES (:'mail', 1);
SELECT results_eq(
    'SELECT outcome, finished_at, started_at FROM backend.mail_attempts', $$VALUES ('outcome_unknown', NULL::timestamptz, backend.now())$$,
    'what came of an attempt is unknown until it is reported');
DELETE FROM backend.mail_attempts;

-- Invariants.
SELECT is(backend.mail_has_places_only(t), e, d)
  FROM (VALUES ('none', true, 'a template needs no place'), ('{{name}} {{x_y}} {', true, 'places are names in braces'), ('{{ name }}', false, 'with nothing else'),
               ('{{Name}}', false, 'in small letters'), ('{{name}', false, 'that are closed'), ('name}}', false, 'and opened')) AS t(t, e, d);
SELECT is(pg_temp.violated(format('INSERT INTO backend.mail_templates (template_id, subject, body_text, body_html, is_secret) VALUES (''x.y'', %L, %L, %L, %L)', s, t, h, x)), c, d)
  FROM (VALUES ('{{ a }}', '', '', false, 'mail_templates_subject_has_places_only', 'a subject is not silently wrong'),
               ('', '{{ a }}', '', false, 'mail_templates_text_has_places_only', 'nor a text'), ('', '', '{{ a }}', false, 'mail_templates_html_has_places_only', 'nor HTML'),
               ('{{code}}', '', '', true, 'mail_templates_secret_is_not_in_the_subject', 'a secret is not in what administrators see')) AS t(s, t, h, x, c, d);

SELECT is_empty('SELECT * FROM backend.invariants_mail', 'nothing is wrong yet');
SELECT pg_temp.plant(format($$UPDATE backend.mail_deliveries SET status = 'sent' WHERE delivery_id = %L$$, :'mail')) \g /dev/null
INSERT INTO backend.mail_attempts (delivery_id, attempt_no, outcome) VALUES (:'mail', 1, 'outcome_unknown');
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_mail', format($$VALUES ('sent_mail_without_a_sent_attempt', %L::uuid)$$, :'mail'),
    'a mail that was sent by no attempt is listed');
UPDATE backend.mail_attempts SET outcome = 'sent';
SELECT is_empty('SELECT * FROM backend.invariants_mail', 'one that was sent by an attempt is not');
SELECT pg_temp.plant(format('DELETE FROM backend.mail_recipients WHERE delivery_id = %L', :'mail')) \g /dev/null
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_mail', format($$VALUES ('mail_without_a_recipient', %L::uuid)$$, :'mail'),
    'a mail to nobody is listed');
INSERT INTO backend.mail_recipients VALUES (:'mail', 'ann@example.org');
INSERT INTO backend.mail_dead_letters VALUES (:'mail', 'x');
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_mail', format($$VALUES ('dead_letter_and_delivery_disagree', %L::uuid)$$, :'mail'),
    'a dead letter that was sent is listed');
DELETE FROM backend.mail_dead_letters;
SELECT pg_temp.plant(format($$UPDATE backend.mail_deliveries SET status = 'dead_lettered' WHERE delivery_id = %L$$, :'mail')) \g /dev/null
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_mail', format($$VALUES ('dead_letter_and_delivery_disagree', %L::uuid)$$, :'mail'),
    'and so is a mail that was given up with no dead letter');
INSERT INTO backend.mail_dead_letters VALUES (:'mail', 'x');
SELECT pg_temp.plant(format($$UPDATE backend.mail_payloads SET body_text = 'x', body_html = 'x', erased_at = NULL
    WHERE payload_id = (SELECT payload_id FROM backend.mail_deliveries WHERE delivery_id = %L)$$, :'secret')) \g /dev/null
SELECT is_empty('SELECT * FROM backend.invariants_mail', 'a secret that is still to be sent is kept');
SELECT pg_temp.plant(format($$UPDATE backend.mail_deliveries SET status = 'expired' WHERE delivery_id = %L$$, :'secret')) \g /dev/null
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_mail', format($$VALUES ('secret_kept_in_a_mail_that_is_done_with', %L::uuid)$$, :'secret'),
    'a secret of a mail that is done with is listed');

SELECT * FROM finish();
ROLLBACK;
