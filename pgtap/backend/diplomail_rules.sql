-- Test galaxy-backend:backend/diplomail_rules

BEGIN;
SELECT plan(31);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('diplomail_text_refuse', 'stable'), ('diplomail_readers', 'stable'), ('diplomail_send', 'volatile'), ('diplomail_json', 'stable'), ('diplomail_game_find', 'stable')) AS t(f, v);
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT backend.diplomail_readers(gen_random_uuid(), NULL, ''[]'')', '42501', NULL, 'backend_api looks for readers through its door only');
RESET ROLE;

-- Text, in bytes.
SELECT is(
    pg_temp.answer(format('SELECT backend.diplomail_text_refuse(%L)', jsonb_build_object(f, repeat(c, n)))), r,
    format('%s times %s as %s', n, c, f))
  FROM (VALUES ('body', 'a', 4096, 'done'), ('body', 'a', 4097, 'GX400 invalid_request'), ('body', 'ש', 2048, 'done'), ('body', 'ש', 2049, 'GX400 invalid_request'),
               ('body', '漢', 1365, 'done'), ('body', '漢', 1366, 'GX400 invalid_request'), ('body', '🚀', 1024, 'done'), ('body', '🚀', 1025, 'GX400 invalid_request'),
               ('subject', 'a', 256, 'done'), ('subject', 'a', 257, 'GX400 invalid_request'), ('subject', 'ع', 128, 'done'), ('subject', 'ع', 129, 'GX400 invalid_request'),
               ('body', ' ', 9, 'GX400 invalid_request'), ('subject', E'\u200b', 1, 'GX400 invalid_request')) AS t(f, c, n, r);
SET LOCAL backend.diplomail_max_body_bytes = '10';
SELECT is(
    (pg_temp.refused($$SELECT backend.diplomail_text_refuse('{"body": "12345678901"}')$$) ->> 'hint')::jsonb,
    '[{"path": "body", "problem": "is over 10 bytes"}]', 'as many as are configured, and the sender is told');

-- Whom a request is for.
SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('dan') AS dan \gset
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas"}') AS game \gset
SELECT pg_temp.join(:'game', :'bob', 'Betas') AS bobs, pg_temp.join(:'game', :'cid', 'Chis') AS cids \gset
SELECT is(backend.diplomail_readers(:'game', :'ann', '"all"'), NULL, 'all are not listed');
SELECT is(backend.diplomail_readers(:'game', :'ann', '["B-E-T-A-S", "Betas"]'), ARRAY[:'bob']::uuid[], 'a race is one, however it is written and how often');
SELECT is(
    (pg_temp.refused(format('SELECT backend.diplomail_readers(%L, %L, ''["Betas", "Zorg", "Alphas"]'')', :'game', :'ann')) ->> 'hint')::jsonb,
    '{"recipients": ["Zorg", "Alphas"]}', 'who is not there, or is the sender, is named');
UPDATE backend.memberships SET status = 'removed', ended_at = backend.now() WHERE membership_id = :'cids';
SELECT is(pg_temp.answer(format('SELECT backend.diplomail_readers(%L, %L, ''["Chis"]'')', :'game', :'ann')), 'GX422 recipient_not_found', 'who was removed is not there');
SELECT backend.account_delete(:'bob') \g /dev/null
SELECT is(pg_temp.answer(format($$SELECT backend.diplomail_send(%L, 'admin', a, '{"recipients": "all", "body": "x"}') FROM backend.accounts AS a WHERE user_id = %L$$, :'game', :'ann')), 'GX422 recipient_not_found', 'where there is nobody else nothing is sent');
UPDATE backend.memberships SET status = 'active', ended_at = NULL WHERE membership_id = :'cids';

-- What a message looks like.
UPDATE backend.accounts SET preferred_language = 'fr' WHERE user_id = :'cid';
SET LOCAL backend.diplomail_translator = '1';
SELECT (backend.diplomail_send(:'game', 'personal', a, '{"recipients": ["Chis"], "subject": "Peace", "body": "Now"}')).message_id AS message FROM backend.accounts AS a WHERE user_id = :'ann' \gset
UPDATE backend.diplomail_translations SET status = 'translated', subject = 'Paix', body = 'Maintenant' WHERE message_id = :'message';
SELECT is(
    (SELECT backend.diplomail_json(m, 'fr-CA', m.created_at) FROM backend.diplomail_messages AS m WHERE message_id = :'message'),
    jsonb_build_object('message_id', :'message', 'game_id', :'game', 'kind', 'personal', 'sender_race_name', 'Alphas', 'recipients', ARRAY['Chis'], 'subject', 'Peace', 'body', 'Now',
                       'language', 'en', 'translation', '{"language": "fr", "subject": "Paix", "body": "Maintenant"}'::jsonb, 'sent_at', backend.ts(backend.now()), 'read_at', backend.ts(backend.now())),
    'a message is shown as the contract says, with its translation');
SELECT is((SELECT backend.diplomail_json(m, l, NULL) -> 'translation' FROM backend.diplomail_messages AS m WHERE message_id = :'message'), 'null', 'who reads another language sees none')
  FROM (VALUES ('de'), (NULL)) AS t(l);

-- Who may look.
SELECT is(pg_temp.answer(format('SELECT backend.diplomail_game_find(%L, %L)', :'game', u)), 'done', 'members look') FROM unnest(ARRAY[:'ann']) AS u;
SELECT is(pg_temp.answer(format('SELECT backend.diplomail_game_find(%L, %L)', :'game', :'dan')), 'GX404 game_not_found', 'who sees nothing of the game does not');

SELECT * FROM finish();
ROLLBACK;
