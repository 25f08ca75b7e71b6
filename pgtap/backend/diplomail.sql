-- Test galaxy-backend:backend/diplomail

BEGIN;
SELECT plan(66);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
SELECT has_table('backend', t, format('there is %s', t)) FROM unnest(ARRAY['diplomail_messages', 'diplomail_recipients', 'diplomail_translations', 'diplomail_broadcasts']) AS t;
SELECT has_domain('backend', 'primary_language', 'languages are of a type');
SELECT has_view('backend', 'invariants_diplomail', 'what must never be seen is a view');
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('language_primary', 'immutable'), ('diplomail_deliver', 'volatile'), ('diplomail_write', 'volatile'), ('diplomail_tell', 'volatile'), ('diplomail_remove', 'volatile')) AS t(f, v);
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM backend.diplomail_messages', '42501', NULL, 'backend_api reads no mail past its door');
SET LOCAL ROLE backend_worker;
SELECT throws_ok('SELECT backend.diplomail_tell(gen_random_uuid(), ''paused'')', '42501', NULL, 'backend_worker tells nothing past its door');
RESET ROLE;

-- Languages.
SELECT is(backend.language_primary(tag), l, format('%s is %s', tag, l)) FROM (VALUES ('de', 'de'), ('de-AT', 'de'), ('ZH-Hant-TW', 'zh')) AS t(tag, l);
SELECT throws_ok(format('SELECT %L::backend.primary_language', tag), '23514', NULL, format('%s is no language', tag)) FROM unnest(ARRAY['DE', 'de-AT', '']) AS tag;
SELECT is(pg_temp.violated('SELECT ''DE''::backend.primary_language'), 'primary_language_is_a_lowercase_subtag', 'by a constraint');

SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('dan') AS dan \gset
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas"}') AS game \gset
SELECT pg_temp.join(:'game', :'bob', 'Betas'), pg_temp.join(:'game', :'cid', 'Chis') \g /dev/null
UPDATE backend.accounts SET preferred_language = 'de-AT' WHERE user_id = :'bob';
CREATE FUNCTION pg_temp.write(p_game_id uuid, p_sender uuid, p_to uuid[] DEFAULT NULL) RETURNS uuid
LANGUAGE sql
RETURN (backend.diplomail_write(p_game_id, CASE WHEN p_sender IS NULL THEN 'admin' ELSE 'personal' END,
                                (SELECT a FROM backend.accounts AS a WHERE a.user_id = p_sender), 'Hello', 'World', p_to)).message_id;
CREATE FUNCTION pg_temp.readers(p_message_id uuid) RETURNS text
LANGUAGE sql
RETURN (SELECT string_agg(concat_ws(' ', r.race_name, r.language, CASE WHEN r.delivered_at IS NOT NULL THEN 'has it' END), ', ' ORDER BY r.race_name)
          FROM backend.diplomail_recipients AS r WHERE r.message_id = p_message_id);

-- Written to all, without a translator.
SELECT pg_temp.write(:'game', :'ann') AS plain \gset
SELECT is(pg_temp.readers(:'plain'), 'Betas has it, Chis has it', 'all are written to but the sender, and without a translator have it at once');
SELECT results_eq(
    format('SELECT kind, sender_user_id, sender_race_name, recipients, language::text, subject, body FROM backend.diplomail_messages WHERE message_id = %L', :'plain'),
    format($$VALUES ('personal', %L::uuid, 'Alphas', ARRAY['Betas', 'Chis'], 'en', 'Hello', 'World')$$, :'ann'), 'race names are stored with the message');
SELECT is((SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE queue_name = 'diplomail'), 0::bigint, 'there is nothing for a job to do');
SELECT results_eq(
    $$SELECT user_id, payload FROM backend.notifications WHERE kind = 'diplomail.received' ORDER BY user_id$$,
    format($$SELECT u::uuid, jsonb_build_object('game_id', %L::uuid, 'message_id', %L::uuid) FROM unnest(ARRAY[%L, %L]) AS u ORDER BY u::uuid$$, :'game', :'plain', :'bob', :'cid'),
    'each is told of it');
SELECT backend.diplomail_deliver(:'plain', NULL) \g /dev/null
SELECT is((SELECT count(*) FROM backend.notifications WHERE kind = 'diplomail.received'), 2::bigint, 'once');
SELECT is(pg_temp.write(:'game', :'ann', ARRAY[:'ann']::uuid[]), NULL, 'nobody writes to themself');
SELECT is((SELECT count(*) FROM backend.diplomail_messages), 1::bigint, 'what is for nobody is not written');

-- With one.
SET LOCAL backend.diplomail_translator = '1';
SELECT pg_temp.write(:'game', :'ann') AS foreign \gset
SELECT is(pg_temp.readers(:'foreign'), 'Betas de, Chis has it', 'who reads another language waits for a translation, the others do not');
SELECT is((SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE queue_name = 'diplomail' AND task_name = 'diplomail_deliver'), 1::bigint, 'which a job makes');
UPDATE backend.accounts SET preferred_language = 'en-GB' WHERE user_id = :'bob';
SELECT is(pg_temp.readers(pg_temp.write(:'game', :'ann', ARRAY[:'bob']::uuid[])), 'Betas has it', 'another English is English');
UPDATE backend.accounts SET preferred_language = 'de' WHERE user_id IN (:'bob', :'cid');
SELECT pg_temp.write(:'game', NULL) AS official \gset
SELECT is(pg_temp.readers(:'official'), 'Alphas has it, Betas de, Chis de', 'what has no person behind it is in English');
SELECT is((SELECT count(*) FROM backend.diplomail_translations WHERE message_id = :'official'), 1::bigint, 'two who read one language share a translation');
SELECT is((SELECT count(DISTINCT text_hash) FROM backend.diplomail_translations), 1::bigint, 'and the same text in two messages is known as such');

-- Who is removed meanwhile.
SELECT backend.membership_end(g, m, 'removed', 'owner') FROM backend.games AS g JOIN backend.memberships AS m USING (game_id) WHERE g.game_id = :'game' AND m.user_id = :'bob' \g /dev/null
SELECT is(
    (SELECT string_agg(m.kind || ' ' || m.subject || ' ' || array_to_string(m.recipients, ','), ';') FROM backend.diplomail_messages AS m WHERE m.kind = 'system'),
    'system You were removed from the game Betas', 'is told so by the platform');
UPDATE backend.diplomail_translations SET status = 'failed' WHERE message_id = :'foreign' OR message_id = :'official';
SELECT backend.diplomail_deliver(:'foreign', 'de'), backend.diplomail_deliver(:'official', 'de') \g /dev/null
SELECT is(pg_temp.readers(:'foreign'), 'Chis has it', 'gets no more');
SELECT is(pg_temp.readers(:'official'), 'Alphas has it, Chis de has it', 'whoever wrote it');
SELECT is(pg_temp.readers(:'plain'), 'Betas has it, Chis has it', 'and keeps what they had');
SELECT is((SELECT recipients FROM backend.diplomail_messages WHERE message_id = :'foreign'), ARRAY['Betas', 'Chis'], 'that it was written to them stays written');
SELECT backend.diplomail_deliver(message_id, 'de') FROM backend.diplomail_messages WHERE kind = 'system' \g /dev/null
SELECT is(pg_temp.readers(message_id), 'Betas de has it', 'that they were removed they get all the same') FROM backend.diplomail_messages WHERE kind = 'system';
SET LOCAL backend.diplomail_translator = '0';

-- What the platform says.
DELETE FROM backend.diplomail_recipients WHERE language IS NOT NULL AND message_id IN (SELECT message_id FROM backend.diplomail_messages WHERE kind = 'system');
SELECT backend.diplomail_tell(:'game', e, p) FROM (VALUES ('paused', NULL::uuid[]), ('cancelled', NULL), ('blocked', ARRAY[:'bob']::uuid[])) AS t(e, p) \g /dev/null
SELECT results_eq(
    $$SELECT m.subject, pg_temp.readers(m.message_id) FROM backend.diplomail_messages AS m WHERE m.kind = 'system' ORDER BY m.subject$$,
    $$VALUES ('The game is cancelled', 'Alphas has it, Chis has it'), ('The game is paused', 'Alphas has it, Chis has it'),
             ('You were blocked in the game', 'Betas has it'), ('You were removed from the game', NULL)$$, 'all members are told, or the person');
SELECT throws_ok(format('SELECT backend.diplomail_tell(%L, ''lost'')', :'game'), '23502', NULL, 'of what there is nothing to say nothing is said');
SELECT is((SELECT count(*) FROM backend.invariants_diplomail WHERE invariant <> 'reader_left_waiting_for_a_translation_that_is_settled'), 0::bigint, 'nothing is as it must not be');

-- Deletion for everybody.
SELECT is(backend.diplomail_remove(ARRAY[:'official']::uuid[]), 1, 'a message is deleted');
SELECT is((SELECT count(*) FROM backend.diplomail_recipients WHERE message_id = :'official') + (SELECT count(*) FROM backend.diplomail_translations WHERE message_id = :'official'), 0::bigint, 'with all that hangs on it');
SELECT is(backend.diplomail_remove('{}'), 0, 'or none');

-- The machine, and the constraints.
SELECT is(pg_temp.answer(format('INSERT INTO backend.diplomail_translations (message_id, language, text_hash, status) VALUES (%L, ''fr'', 0, %L)', :'plain', s)), 'GX409 invalid_transition', format('a translation does not begin %s', s))
  FROM unnest(ARRAY['retrying', 'failed']) AS s;
INSERT INTO backend.diplomail_translations (message_id, language, text_hash) VALUES (:'plain', 'fr', 0);
SELECT is(pg_temp.violated(format('UPDATE backend.%I SET %s WHERE message_id = %L', t, c, :'plain')), v, v)
  FROM (VALUES ('diplomail_messages', 'kind = ''x''', 'diplomail_messages_kind_is_known'),
               ('diplomail_messages', 'recipients = ''{}''', 'diplomail_messages_are_for_somebody'),
               ('diplomail_messages', 'subject = E''a\nb''', 'diplomail_messages_subject_is_one_line'),
               ('diplomail_messages', 'body = E''a\rb''', 'diplomail_messages_body_is_plain'),
               ('diplomail_messages', 'sender_race_name = NULL', 'diplomail_messages_personal_is_from_a_race'),
               ('diplomail_messages', 'kind = ''system''', 'diplomail_messages_system_is_from_nobody'),
               ('diplomail_messages', 'kind = ''admin'', sender_user_id = NULL, sender_deleted_at = backend.now()', 'diplomail_messages_are_deleted_by_their_sender'),
               ('diplomail_translations', 'status = ''translated''', 'diplomail_translations_have_a_body_once_translated'),
               ('diplomail_translations', 'subject = ''x''', 'diplomail_translations_subject_comes_with_the_body'),
               ('diplomail_recipients', 'delivered_at = NULL, read_at = backend.now()', 'diplomail_recipients_read_what_they_have'),
               ('diplomail_recipients', 'delivered_at = NULL, deleted_at = backend.now()', 'diplomail_recipients_delete_what_they_have'),
               ('diplomail_recipients', 'language = ''ja''', 'diplomail_recipients_wait_for_a_translation')) AS t(t, c, v);
INSERT INTO backend.diplomail_broadcasts (game_ids, body) VALUES (ARRAY[:'game', :'game']::uuid[], 'x');
SELECT is(pg_temp.violated('UPDATE backend.diplomail_broadcasts SET ' || c), v, format('%s: %s', v, c))
  FROM (VALUES ('subject = E''a\nb''', 'diplomail_broadcasts_subject_is_one_line'), ('body = E''a\rb''', 'diplomail_broadcasts_body_is_plain'),
               ('written_count = 2', 'diplomail_broadcasts_are_deleted_when_written'), ('written_count = -1', 'diplomail_broadcasts_are_deleted_when_written'),
               ('game_ids = ''{}''', 'diplomail_broadcasts_are_deleted_when_written')) AS t(c, v);
SELECT col_is_unique('backend', 'diplomail_messages', ARRAY['message_id', 'game_id'], 'diplomail_messages_have_one_game') WHERE 'diplomail_messages_have_one_game' <> '';

-- What must never be seen is seen.
SELECT pg_temp.plant(format($$INSERT INTO backend.diplomail_recipients (message_id, user_id, game_id, race_name) VALUES (%L, %L, %L, 'Deltas')$$, :'plain', :'ann', :'game')) \g /dev/null
SELECT pg_temp.plant(format($$INSERT INTO backend.diplomail_translations (message_id, language, text_hash, status) VALUES (%1$L, 'en', 0, 'failed'), (%1$L, 'es', 0, 'pending')$$, :'plain')) \g /dev/null
SELECT pg_temp.plant(format($$UPDATE backend.diplomail_recipients SET delivered_at = NULL, language = 'en' WHERE message_id = %L AND user_id = %L$$, :'plain', :'ann')) \g /dev/null
SELECT pg_temp.plant(format($$UPDATE backend.diplomail_recipients SET language = 'es' WHERE message_id = %L AND user_id = %L$$, :'plain', :'cid')) \g /dev/null
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL, email_hash = '\x00' WHERE user_id = :'cid';
SELECT pg_temp.plant(format($$INSERT INTO backend.diplomail_recipients (message_id, user_id, game_id, race_name) VALUES (%L, %L, %L, 'Deltas')$$, :'plain', :'dan', :'game')) \g /dev/null
SELECT set_has(
    'SELECT invariant FROM backend.invariants_diplomail',
    $$VALUES ('message_that_its_sender_was_sent'), ('reader_left_waiting_for_a_translation_that_is_settled'), ('message_delivered_before_its_translation'),
             ('reader_left_waiting_for_nothing'), ('reader_who_is_gone'), ('reader_whose_race_was_not_written_to'), ('translation_into_its_own_language')$$, 'every violation is seen');

SELECT * FROM finish();
ROLLBACK;
