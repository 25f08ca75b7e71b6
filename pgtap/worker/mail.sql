-- Test galaxy-backend:worker/mail

BEGIN;
SELECT plan(106);
\ir ../helpers.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[]);
INSERT INTO functions VALUES ('mail_claim', ARRAY['integer', 'numeric', 'integer']), ('mail_purge', ARRAY['integer']), ('mail_keep', ARRAY['uuid', 'integer', 'numeric']), ('mail_report', ARRAY['uuid', 'integer', 'text', 'text']);
SELECT function_returns('worker', 'mail_claim', ARRAY['integer', 'numeric', 'integer'], 'setof record', 'mails are claimed in batches');
SELECT function_returns('worker', 'mail_report', ARRAY['uuid', 'integer', 'text', 'text'], 'text', 'a report is answered with the state');
SELECT volatility_is('worker', name, arguments, 'volatile', format('%s() is VOLATILE', name)) FROM functions;
SELECT is_definer('worker', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('worker', name, arguments, 'backend_worker', ARRAY['EXECUTE'], format('backend_worker may execute %s()', name)) FROM functions;
SELECT function_privs_are('worker', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_api', 'backend_push']) AS r;

-- As the program calls them; mails are known by their keys.
INSERT INTO backend.mail_templates (template_id, subject, body_text, body_html, priority) VALUES
    ('test.low', 'Low {{n}}', 'Text {{n}}', '<!doctype html>{{n}}', 0), ('test.high', 'High {{n}}', 'Text {{n}}', '<!doctype html>{{n}}', 10);
CREATE FUNCTION pg_temp.enqueue(p_key text, p_template text DEFAULT 'test.low', p_expires_in interval DEFAULT NULL) RETURNS uuid LANGUAGE sql
RETURN backend.mail_enqueue(p_template, p_key, ARRAY[p_key || '@b.example.org', p_key || '@a.example.org'], jsonb_build_object('n', p_key, 'code', p_key, 'minutes', 1),
                            NULL, backend.now() + p_expires_in);
CREATE FUNCTION pg_temp.claim(p_limit integer DEFAULT 10, p_lease numeric DEFAULT 60, p_min_priority integer DEFAULT 0) RETURNS text[]
LANGUAGE plpgsql SET role = backend_worker AS $$
DECLARE
    v_claimed text[];
BEGIN
    SELECT array_agg(c.subject || ' #' || c.attempt_no ORDER BY c.n) INTO v_claimed
      FROM (SELECT m.*, row_number() OVER () AS n FROM worker.mail_claim(p_limit, p_lease, p_min_priority) AS m) AS c;
    RETURN coalesce(v_claimed, '{}');
END;
$$;
CREATE FUNCTION pg_temp.report(p_key text, p_attempt_no integer, p_outcome text, p_error text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_delivery_id uuid := (SELECT delivery_id FROM backend.mail_deliveries WHERE idempotency_key = p_key);
    v_status text;
BEGIN
    SET LOCAL ROLE backend_worker;
    v_status := worker.mail_report(v_delivery_id, p_attempt_no, p_outcome, p_error);
    RESET ROLE;
    RETURN v_status;
END;
$$;
CREATE FUNCTION pg_temp.advance(p_by interval) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    UPDATE backend.clock SET clock_offset = clock_offset + p_by;
END;
CREATE FUNCTION pg_temp.delivery(p_key text) RETURNS backend.mail_deliveries LANGUAGE sql
RETURN (SELECT d FROM backend.mail_deliveries AS d WHERE d.idempotency_key = p_key);

-- Claiming.
SELECT is(pg_temp.claim(), '{}', 'where there is no mail none is claimed');
SELECT pg_temp.enqueue('one'), pg_temp.enqueue('urgent', 'test.high') \g /dev/null
SELECT is(pg_temp.claim(0), '{}', 'none is claimed where none is asked for');
SELECT results_eq(
    'SELECT template_id, attempt_no, recipients, subject, body_text, body_html FROM worker.mail_claim(10, 60, 0)',
    $$VALUES ('test.high', 1, ARRAY['urgent@a.example.org', 'urgent@b.example.org'], 'High urgent', 'Text urgent', '<!doctype html>urgent'),
             ('test.low', 1, ARRAY['one@a.example.org', 'one@b.example.org'], 'Low one', 'Text one', '<!doctype html>one')$$,
    'what is due comes, the urgent first, with all that is needed to send it');
SELECT is(pg_temp.claim(), '{}', 'what one worker has no other gets');
SELECT results_eq(
    $$SELECT status, attempts, last_attempt_no, lease_until FROM pg_temp.delivery('one')$$,
    $$VALUES ('pending', 1, 1, backend.now() + interval '60 seconds')$$, 'while its lease lasts');
SELECT results_eq(
    $$SELECT attempt_no, outcome, started_at, finished_at FROM backend.mail_attempts WHERE delivery_id = (pg_temp.delivery('one')).delivery_id$$,
    $$VALUES (1, 'outcome_unknown', backend.now(), NULL::timestamptz)$$, 'the attempt is written down before anything is sent');
SELECT pg_temp.enqueue('two'), pg_temp.advance('1 second'), pg_temp.enqueue('three') \g /dev/null
SELECT is(pg_temp.claim(1), ARRAY['Low two #1'], 'no more are claimed than are asked for, what is due for longer first');
SELECT is(pg_temp.claim(1, 0.5), ARRAY['Low three #1'], 'then the next');
SELECT pg_temp.advance('0.5 seconds') \g /dev/null
SELECT is(pg_temp.claim(1), ARRAY['Low three #2'], 'a lease that has run out is no one''s, to the microsecond');

-- Sent.
SELECT is(pg_temp.report('one', 1, 'sent'), 'sent', 'a mail is sent');
SELECT results_eq(
    $$SELECT status, lease_until FROM pg_temp.delivery('one')$$, $$VALUES ('sent', NULL::timestamptz)$$, 'and nobody''s any more');
SELECT results_eq(
    $$SELECT outcome, error, finished_at FROM backend.mail_attempts WHERE delivery_id = (pg_temp.delivery('one')).delivery_id$$,
    $$VALUES ('sent', NULL, backend.now())$$, 'the attempt says so');
SELECT is(pg_temp.report('one', 1, 'permanent', 'changed its mind'), 'sent', 'what was reported stays');
SELECT is(
    (SELECT outcome FROM backend.mail_attempts WHERE delivery_id = (pg_temp.delivery('one')).delivery_id), 'sent', 'of the attempt too');
SELECT is(pg_temp.report('nothing', 1, 'sent'), NULL, 'of a mail that is not there nothing is said');
SELECT pg_temp.advance('1 day') \g /dev/null
SELECT is(pg_temp.claim(10) @> ARRAY['Low one #2'], false, 'what is sent is not sent again');
SELECT is((SELECT p.body_text FROM backend.mail_payloads AS p WHERE p.payload_id = (pg_temp.delivery('one')).payload_id), 'Text one', 'a mail that is no secret is kept');
UPDATE backend.mail_deliveries SET status = 'cancelled' WHERE status = 'pending';

-- Tried again.
SELECT pg_temp.enqueue('later'), pg_temp.claim() \g /dev/null
SELECT is(pg_temp.report('later', 1, 'transient', repeat('x', 2000)), 'retrying', 'what fails for now is tried again');
SELECT results_eq(
    $$SELECT attempts, lease_until, next_attempt_at BETWEEN backend.now() + interval '2.5 seconds' AND backend.now() + interval '5 seconds'
        FROM pg_temp.delivery('later')$$, $$VALUES (1, NULL::timestamptz, true)$$, 'in five seconds, or up to half less');
SELECT is(
    (SELECT length(error) FROM backend.mail_attempts WHERE delivery_id = (pg_temp.delivery('later')).delivery_id), 1000, 'an error is kept, cut where it is too long');
SELECT is(pg_temp.claim(), '{}', 'not before');
UPDATE backend.mail_deliveries SET next_attempt_at = backend.now() + interval '1 microsecond' WHERE status = 'retrying';
SELECT is(pg_temp.claim(), '{}', 'not a moment before');
UPDATE backend.mail_deliveries SET next_attempt_at = backend.now() WHERE status = 'retrying';
SELECT is(pg_temp.claim(), ARRAY['Low later #2'], 'and then with the next number');
CREATE TEMPORARY TABLE waits (attempt integer, wait interval);
DO $$
BEGIN
    FOR i IN 2..7 LOOP
        PERFORM pg_temp.report('later', i, 'transient', '4xx');
        INSERT INTO waits SELECT i, next_attempt_at - backend.now() FROM pg_temp.delivery('later');
        PERFORM pg_temp.advance('1 hour');
        PERFORM pg_temp.claim();
    END LOOP;
END;
$$;
SELECT is_empty(
    $$SELECT attempt, wait FROM waits
       WHERE extract(epoch FROM wait) NOT BETWEEN least(3600, 5 * 4 ^ (attempt - 1)) / 2 AND least(3600, 5 * 4 ^ (attempt - 1))$$,
    'each wait is four times the one before, to an hour, less up to a half');
SELECT results_eq(
    $$SELECT status, attempts, last_attempt_no FROM pg_temp.delivery('later')$$, $$VALUES ('retrying', 8, 8)$$, 'seven failures are not the end');
SELECT is(pg_temp.report('later', 8, 'transient', '421 too often'), 'dead_lettered', 'the eighth is');
SELECT results_eq(
    $$SELECT reason, created_at FROM backend.mail_dead_letters WHERE delivery_id = (pg_temp.delivery('later')).delivery_id$$,
    $$VALUES ('421 too often', backend.now())$$, 'which leaves a dead letter');
SELECT pg_temp.advance('1 day') \g /dev/null
SELECT is(pg_temp.claim(), '{}', 'and is not tried again');
UPDATE backend.mail_deliveries SET status = 'pending', attempts = 0, next_attempt_at = backend.now() WHERE idempotency_key = 'later';
DELETE FROM backend.mail_dead_letters;
SELECT is(pg_temp.claim(), ARRAY['Low later #9'], 'unless somebody sends it again: its numbers go on rising');
SELECT is(pg_temp.report('later', 9, 'transient', '4xx'), 'retrying', 'and it is tried as often as before');
UPDATE backend.mail_deliveries SET status = 'cancelled' WHERE status = 'retrying';
SELECT pg_temp.enqueue('long') \g /dev/null
UPDATE backend.mail_deliveries SET attempts = 20 WHERE idempotency_key = 'long';
SET LOCAL backend.mail_max_attempts = '50';
SELECT pg_temp.claim() \g /dev/null
SELECT is(pg_temp.report('long', 1, 'transient'), 'retrying', 'how often is a setting');
SELECT cmp_ok((pg_temp.delivery('long')).next_attempt_at - backend.now(), '<=', interval '1 hour', 'no wait is longer than an hour');
SELECT cmp_ok((pg_temp.delivery('long')).next_attempt_at - backend.now(), '>=', interval '30 minutes', 'nor shorter than half of it, then');
RESET backend.mail_max_attempts;
UPDATE backend.mail_deliveries SET status = 'cancelled' WHERE status = 'retrying';

-- Not known: the relay's answer was lost. It may have been sent, and is sent again rather than not at all.
SELECT pg_temp.enqueue('unknown'), pg_temp.claim() \g /dev/null
SELECT is(pg_temp.report('unknown', 1, 'outcome_unknown', 'reset'), 'retrying', 'what may have been sent is sent again');
SELECT results_eq(
    $$SELECT outcome, error, finished_at FROM backend.mail_attempts WHERE delivery_id = (pg_temp.delivery('unknown')).delivery_id$$,
    $$VALUES ('outcome_unknown', 'reset', backend.now())$$, 'and the attempt says that nobody knows');
UPDATE backend.mail_deliveries SET status = 'cancelled' WHERE status = 'retrying';
SELECT pg_temp.enqueue('unknown-8') \g /dev/null
UPDATE backend.mail_deliveries SET attempts = 7 WHERE idempotency_key = 'unknown-8';
SELECT pg_temp.claim() \g /dev/null
SELECT is(pg_temp.report('unknown-8', 1, 'outcome_unknown'), 'dead_lettered', 'but not for ever');

-- Given up at once.
SELECT pg_temp.enqueue('refused'), pg_temp.claim() \g /dev/null
SELECT is(pg_temp.report('refused', 1, 'permanent', '550 no such user'), 'dead_lettered', 'what is refused for good is given up at once');
SELECT is(
    (SELECT reason FROM backend.mail_dead_letters WHERE delivery_id = (pg_temp.delivery('refused')).delivery_id), '550 no such user', 'with the reason');
SELECT pg_temp.enqueue('mute'), pg_temp.claim() \g /dev/null
SELECT is(pg_temp.report('mute', 1, 'permanent'), 'dead_lettered', 'and without an error');
SELECT is((SELECT reason FROM backend.mail_dead_letters WHERE delivery_id = (pg_temp.delivery('mute')).delivery_id), 'permanent', 'with what there is');

-- Administrators are told, but not that a mail to them is dead.
SELECT results_eq(
    $$SELECT n.idempotency_key, n.user_id, n.payload FROM backend.notifications AS n WHERE n.payload ->> 'delivery_id' = (pg_temp.delivery('refused')).delivery_id::text$$,
    $$SELECT delivery_id || ':1', NULL::uuid, jsonb_build_object('delivery_id', delivery_id, 'template_id', 'test.low') FROM pg_temp.delivery('refused')$$,
    'administrators are told which mail was given up');
SELECT backend.mail_enqueue('mail.dead_lettered', 'itself', ARRAY['ops@example.org'], '{"delivery_id": "x", "template_id": "y"}') \g /dev/null
SELECT pg_temp.claim() \g /dev/null
SELECT is(pg_temp.report('itself', 1, 'permanent', '550'), 'dead_lettered', 'the mail that says so can be given up too');
SELECT is_empty($$SELECT FROM backend.notifications WHERE payload ->> 'template_id' = 'mail.dead_lettered'$$, 'of which nobody is told');

-- Outcomes that are none.
SELECT pg_temp.enqueue('odd'), pg_temp.claim() \g /dev/null
SELECT throws_ok($$SELECT pg_temp.report('odd', 1, 'lost')$$, '23514', NULL, 'an outcome is one that is known');
SELECT throws_ok($$SELECT pg_temp.report('odd', 1, NULL)$$, '23502', NULL, 'and is told');
SELECT is((pg_temp.delivery('odd')).status, 'pending', 'such a report moves nothing');
UPDATE backend.mail_deliveries SET status = 'cancelled' WHERE status IN ('pending', 'retrying');

-- A worker that died, and one that is late.
SELECT pg_temp.enqueue('lost'), pg_temp.claim(1, 60), pg_temp.advance('60 seconds') \g /dev/null
SELECT is(pg_temp.claim(), ARRAY['Low lost #2'], 'what a worker had that died goes out without anybody''s help');
SELECT is(pg_temp.report('lost', 1, 'permanent', 'late'), 'pending', 'what it reports late moves nothing');
SELECT results_eq(
    $$SELECT attempt_no, outcome, error FROM backend.mail_attempts WHERE delivery_id = (pg_temp.delivery('lost')).delivery_id ORDER BY 1$$,
    $$VALUES (1, 'permanent', 'late'), (2, 'outcome_unknown', NULL)$$, 'but is written down');
SELECT is(pg_temp.report('lost', 2, 'sent'), 'sent', 'the one that has it now decides');
SELECT pg_temp.enqueue('doubled'), pg_temp.claim(1, 60), pg_temp.advance('60 seconds'), pg_temp.claim(1, 60) \g /dev/null
SELECT is(pg_temp.report('doubled', 1, 'sent'), 'sent', 'but what it sent, though it says so late, is sent');
SELECT is(pg_temp.report('doubled', 2, 'transient', '4xx'), 'sent', 'whatever comes of the attempt that took over');
SELECT is(pg_temp.claim(), '{}', 'and nobody sends it again');
SELECT pg_temp.enqueue('overdue') \g /dev/null
UPDATE backend.mail_deliveries SET attempts = 7 WHERE idempotency_key = 'overdue';
SELECT pg_temp.claim(1, 60), pg_temp.advance('60 seconds'), pg_temp.claim(1, 60) \g /dev/null
SELECT is((pg_temp.delivery('overdue')).status, 'dead_lettered', 'of the last attempt nothing is known');
SELECT is(pg_temp.report('overdue', 1, 'transient', '4xx'), 'dead_lettered', 'which stays so, whatever else it says late');
UPDATE backend.mail_attempts SET finished_at = NULL WHERE delivery_id = (pg_temp.delivery('overdue')).delivery_id;
SELECT is(pg_temp.report('overdue', 1, 'sent'), 'sent', 'unless it was sent');
SELECT is_empty($$SELECT FROM backend.mail_dead_letters WHERE delivery_id = (pg_temp.delivery('overdue')).delivery_id$$, 'then it is dead no more');
SELECT pg_temp.enqueue('longer'), pg_temp.claim(1, 60), pg_temp.advance('59 seconds') \g /dev/null
SELECT is(worker.mail_keep((pg_temp.delivery('longer')).delivery_id, 1, 60), true, 'who still sends keeps the mail');
SELECT pg_temp.advance('59 seconds') \g /dev/null
SELECT is(pg_temp.claim(), '{}', 'for as long again');
SELECT pg_temp.advance('1 second'), pg_temp.claim() \g /dev/null
SELECT is(worker.mail_keep((pg_temp.delivery('longer')).delivery_id, 1, 60), false, 'but not from somebody else');
SELECT is(pg_temp.report('longer', 2, 'sent'), 'sent', 'who has it then');
SELECT is(worker.mail_keep((pg_temp.delivery('longer')).delivery_id, 2, 60), false, 'nor when it is done with');
SELECT pg_temp.enqueue('slow'), pg_temp.claim(1, 60), pg_temp.advance('2 minutes') \g /dev/null
SELECT is(pg_temp.report('slow', 1, 'sent'), 'sent', 'one that is late decides while nobody else has it');
SELECT pg_temp.enqueue('stopped'), pg_temp.claim() \g /dev/null
UPDATE backend.mail_deliveries SET status = 'cancelled' WHERE idempotency_key = 'stopped';
SELECT is(pg_temp.report('stopped', 1, 'transient'), 'cancelled', 'what was cancelled meanwhile stays cancelled');
-- A mail that kills whoever sends it must not do so for ever.
SELECT pg_temp.enqueue('poison') \g /dev/null
SELECT pg_temp.claim(1, 60), pg_temp.advance('1 hour') FROM generate_series(1, 9) \g /dev/null
SELECT results_eq(
    $$SELECT status, attempts FROM pg_temp.delivery('poison')$$, $$VALUES ('dead_lettered', 8)$$, 'attempts of which nothing is known count as well');
UPDATE backend.mail_deliveries SET status = 'cancelled' WHERE status IN ('pending', 'retrying');

-- Secrets.
CREATE FUNCTION pg_temp.body(p_key text) RETURNS text LANGUAGE sql
RETURN (SELECT p.body_text FROM backend.mail_payloads AS p WHERE p.payload_id = (pg_temp.delivery(p_key)).payload_id);
SELECT pg_temp.enqueue(k, 'auth.login_code', '1 hour') FROM unnest(ARRAY['code-1', 'code-2', 'code-3']) AS k \g /dev/null
SELECT pg_temp.claim() \g /dev/null
SELECT pg_temp.report('code-1', 1, 'transient', '4xx') \g /dev/null
SELECT isnt(pg_temp.body('code-1'), NULL, 'a code that is to be sent again is kept');
SELECT pg_temp.report('code-2', 1, 'sent'), pg_temp.report('code-3', 1, 'permanent', '5xx') \g /dev/null
SELECT is(pg_temp.body('code-2'), NULL, 'a code that was sent is forgotten');
SELECT is(pg_temp.body('code-3'), NULL, 'a code that was given up is forgotten');

-- Too late.
SELECT pg_temp.advance('1 hour') \g /dev/null
SELECT is(pg_temp.claim(), '{}', 'a code that nobody can use any more is not sent late');
SELECT is((pg_temp.delivery('code-1')).status, 'expired', 'it is dropped');
SELECT is(pg_temp.body('code-1'), NULL, 'and forgotten');
SELECT pg_temp.enqueue('code-4', 'auth.login_code', '1 minute'), pg_temp.claim(1, 120), pg_temp.advance('1 minute') \g /dev/null
SELECT is(pg_temp.claim(), '{}', 'what a worker has is not dropped');
SELECT is((pg_temp.delivery('code-4')).status, 'pending', 'before its lease has run out');
SELECT is(pg_temp.report('code-4', 1, 'sent'), 'sent', 'so that what was sent is not called dropped');
SELECT pg_temp.enqueue('code-' || i, 'auth.login_code', '1 second') FROM generate_series(5, 107) AS i \g /dev/null
SELECT pg_temp.advance('1 second'), pg_temp.claim(2) \g /dev/null
SELECT is(
    (SELECT count(*) FROM backend.mail_deliveries AS d, generate_series(5, 107) AS i
      WHERE d.idempotency_key = 'code-' || i AND d.status = 'expired'), 100::bigint,
    'they are dropped in batches, whatever little is claimed');
SELECT pg_temp.claim(2) \g /dev/null

-- Urgent mail has claims of its own.
SELECT pg_temp.enqueue('bulk'), pg_temp.enqueue('fresh', 'test.high') \g /dev/null
SELECT is(pg_temp.claim(10, 60, 11), '{}', 'who asks for what is more urgent gets nothing else');
SELECT is(pg_temp.claim(10, 60, 10), ARRAY['High fresh #1'], 'but that');
UPDATE backend.mail_deliveries SET status = 'cancelled' WHERE status IN ('pending', 'retrying');

SELECT is_empty($$SELECT * FROM backend.invariants_mail$$, 'nothing is wrong after all this');

-- What is old.
SELECT is(worker.mail_purge(1000), 0, 'mail that was done with lately is kept');
SELECT pg_temp.enqueue('waits'), pg_temp.advance('30 days') \g /dev/null
SELECT is(worker.mail_purge(2), 2, 'after a month it is deleted, in batches');
SELECT worker.mail_purge(1000) \g /dev/null
SELECT results_eq(
    'SELECT status, count(*) > 1 FROM backend.mail_deliveries GROUP BY 1 ORDER BY 1', $$VALUES ('dead_lettered', true), ('pending', false)$$,
    'but what was given up, and what still waits');
SELECT pg_temp.advance('60 days'), worker.mail_purge(1000) \g /dev/null
SELECT results_eq(
    'SELECT d.idempotency_key, (SELECT count(*) FROM backend.mail_payloads), (SELECT count(*) FROM backend.mail_attempts) FROM backend.mail_deliveries AS d',
    $$VALUES ('waits', 1::bigint, 0::bigint)$$, 'for some months; what waits stays for ever');
UPDATE backend.mail_deliveries SET status = 'cancelled' WHERE status IN ('pending', 'retrying');

-- A worker claims often and little: what it looks at must not grow with what waits.
INSERT INTO backend.mail_payloads (payload_id, subject, body_text, body_html) VALUES ('0197f3a2-0000-7000-8000-000000000000', 's', 't', 'h');
INSERT INTO backend.mail_deliveries (template_id, idempotency_key, payload_id, priority, expires_at)
SELECT 'test.low', 'many-' || i, '0197f3a2-0000-7000-8000-000000000000', 0, CASE WHEN i % 2 = 0 THEN backend.now() + interval '1 day' END
  FROM generate_series(1, 5000) AS i;
ANALYZE backend.mail_deliveries;
CREATE FUNCTION pg_temp.rows_read() RETURNS bigint LANGUAGE sql
RETURN (SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'backend.mail_deliveries'::regclass);
SELECT pg_temp.rows_read() AS before \gset
SELECT is(array_length(pg_temp.claim(5), 1), 5, 'of many that wait five are claimed');
SELECT cmp_ok(pg_temp.rows_read() - :before, '<', 200::bigint, 'without looking at all of them');

SELECT * FROM finish();
ROLLBACK;
