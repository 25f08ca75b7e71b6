-- Test galaxy-backend:worker/diplomail

BEGIN;
SELECT plan(54);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[]);
INSERT INTO functions VALUES
    ('diplomail_broadcast', '{}'), ('diplomail_claim', ARRAY['numeric']),
    ('diplomail_report', ARRAY['uuid', 'text', 'integer', 'text', 'text', 'text', 'text']), ('diplomail_purge', ARRAY['integer']);
SELECT volatility_is('worker', name, arguments, 'volatile', format('%s() is VOLATILE', name)) FROM functions;
SELECT is_definer('worker', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('worker', name, arguments, r, p::name[], format('%s may execute %s(): %s', r, name, p <> '{}'))
  FROM functions, (VALUES ('backend_api', '{}'), ('backend_worker', '{EXECUTE}'), ('backend_push', '{}')) AS t(r, p);

SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid \gset
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas"}') AS game \gset
SELECT pg_temp.join(:'game', :'bob', 'Betas'), pg_temp.join(:'game', :'cid', 'Chis') \g /dev/null
UPDATE backend.accounts SET preferred_language = 'de' WHERE user_id = :'bob';
SET LOCAL backend.diplomail_translator = '1';
SET LOCAL backend.diplomail_translator_max_attempts = '2';
CREATE FUNCTION pg_temp.send(p_game_id uuid, p_sender uuid) RETURNS uuid
LANGUAGE sql
RETURN ((api.diplomail_send(p_sender, p_game_id, '{"recipients": ["Betas"], "subject": "Hello", "body": "World"}')).body::jsonb ->> 'message_id')::uuid;
CREATE FUNCTION pg_temp.has(p_message_id uuid) RETURNS boolean
LANGUAGE sql
RETURN (SELECT r.delivered_at IS NOT NULL FROM backend.diplomail_recipients AS r WHERE r.message_id = p_message_id);
CREATE FUNCTION pg_temp.claim() RETURNS text
LANGUAGE sql
RETURN (SELECT concat_ws(' ', c.language, c.attempt_no, c.is_spent, c.subject, c.body) FROM worker.diplomail_claim(30) AS c);
CREATE FUNCTION pg_temp.report(p_message_id uuid, p_attempt_no integer, p_outcome text) RETURNS text
LANGUAGE sql
RETURN worker.diplomail_report(p_message_id, 'de', p_attempt_no, p_outcome, 'Hallo', 'Welt', 'it failed');

-- It is translated once.
SELECT is(pg_temp.claim(), NULL, 'where nothing waits nothing is claimed');
SELECT pg_temp.send(:'game', :'ann') AS one \gset
SELECT is(pg_temp.has(:'one'), false, 'who waits for a translation does not have it yet');
SELECT is(pg_temp.claim(), 'de 1 f Hello World', 'it is claimed');
SELECT is(pg_temp.claim(), NULL, 'by one worker');
SELECT is(pg_temp.report(:'one', 1, 'translated'), 'translated', 'it is translated');
SELECT is(pg_temp.has(:'one'), true, 'and delivered');
SELECT results_eq(format('SELECT subject, body FROM backend.diplomail_translations WHERE message_id = %L', :'one'), $$VALUES ('Hallo', 'Welt')$$, 'in German');
SELECT is(pg_temp.report(:'one', 1, 'failed'), 'translated', 'what is settled stays so');
SELECT is(pg_temp.claim(), NULL, 'and is translated once');
SELECT pg_temp.send(:'game', :'ann') AS again \gset
SELECT results_eq('SELECT body, known_subject, known_body FROM worker.diplomail_claim(30)', $$VALUES ('World', 'Hallo', 'Welt')$$, 'the same text again is known');
SELECT backend.diplomail_remove(ARRAY[:'one', :'again']::uuid[]) \g /dev/null

-- It fails.
SELECT pg_temp.send(:'game', :'ann') AS two \gset
SELECT pg_temp.claim() \g /dev/null
SELECT is(pg_temp.report(:'two', 1, 'transient'), 'retrying', 'a failure that may pass');
SELECT is(pg_temp.claim(), NULL, 'is not tried again at once');
SELECT pg_temp.advance('5 seconds') \g /dev/null
SELECT is(pg_temp.claim(), 'de 2 f Hello World', 'but after a while');
SELECT is(pg_temp.report(:'two', 1, 'transient'), 'retrying', 'who is late decides nothing');
SELECT is(pg_temp.has(:'two'), false, 'until the last attempt');
SELECT is(pg_temp.report(:'two', 2, 'transient'), 'failed', 'which fails as well');
SELECT is(pg_temp.has(:'two'), true, 'then the original is delivered');
SELECT pg_temp.send(:'game', :'ann') AS three \gset
SELECT pg_temp.claim() \g /dev/null
SELECT is(pg_temp.report(:'three', 1, 'failed'), 'failed', 'what will never pass is not tried again');

-- Its worker dies, each time.
SELECT pg_temp.send(:'game', :'ann') AS four \gset
SELECT is(pg_temp.claim(), 'de 1 f Hello World', 'a worker has it');
SELECT pg_temp.advance('30 seconds') \g /dev/null
SELECT is(pg_temp.claim(), 'de 2 f Hello World', 'whose lease is over: another has it');
SELECT pg_temp.advance('30 seconds') \g /dev/null
SELECT is(pg_temp.claim(), 'de 3 t Hello World', 'until it is not to be tried any more');
SELECT is(pg_temp.report(:'four', 2, 'translated'), 'translated', 'a translation that comes late is one');
SELECT is(worker.diplomail_report(gen_random_uuid(), 'de', 1, 'translated', 'a', 'b', NULL), NULL, 'one of a message that is gone is none');

-- Broadcasts.
SELECT is(worker.diplomail_broadcast(), NULL, 'where there is no broadcast none is written');
SELECT pg_temp.game(:'cid', '{"race_name": "Others"}') AS other \gset
INSERT INTO backend.diplomail_broadcasts (game_ids, body, request_id, traceparent)
VALUES (ARRAY[:'game', :'other']::uuid[], 'For all', 'request-1', '00-0123456789abcdef0123456789abcdef-0123456789abcdef-01'), (ARRAY[:'game']::uuid[], 'Later', NULL, NULL);
SELECT is(worker.diplomail_broadcast(), g::uuid, d)
  FROM (VALUES (:'game', 'the oldest is written to its first game'), (:'other', 'then to the next'), (:'game', 'then the next broadcast'), (NULL, 'until all are')) AS t(g, d);
SELECT results_eq(
    $$SELECT m.body, m.kind, m.recipients, m.request_id FROM backend.diplomail_messages AS m WHERE m.body IN ('For all', 'Later') ORDER BY m.message_id$$,
    $$VALUES ('For all', 'admin', ARRAY['Alphas', 'Betas', 'Chis'], 'request-1'), ('For all', 'admin', ARRAY['Others'], 'request-1'),
             ('Later', 'admin', ARRAY['Alphas', 'Betas', 'Chis'], NULL)$$, 'each game has it once, from the request that caused it');
SELECT is((SELECT count(*) FROM backend.diplomail_broadcasts), 0::bigint, 'what is written is kept nowhere else');

-- Retention.
SELECT is(worker.diplomail_purge(10), 0, 'what is written in a game that goes on stays');
SELECT api.game_cancel(:'ann', :'game') \g /dev/null
SELECT is(worker.diplomail_purge(10), 0, 'so does that of one that has ended');
SELECT pg_temp.advance('365 days') \g /dev/null
SELECT is(ARRAY[worker.diplomail_purge(4), worker.diplomail_purge(10), worker.diplomail_purge(10)], ARRAY[4, 2, 0], 'for a year, and then goes in batches');
SELECT is((SELECT count(*) FROM backend.diplomail_recipients WHERE game_id = :'game'), 0::bigint, 'with what everybody had of it');

SELECT * FROM finish();
ROLLBACK;
