-- Test galaxy-backend:api/diplomail

BEGIN;
SELECT plan(143);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], volatility text);
INSERT INTO functions VALUES
    ('diplomail_send', ARRAY['uuid', 'uuid', 'jsonb'], 'volatile'), ('diplomail_inbox_list', ARRAY['uuid', 'uuid', 'integer', 'text'], 'stable'),
    ('diplomail_sent_list', ARRAY['uuid', 'uuid', 'integer', 'text'], 'stable'), ('diplomail_get', ARRAY['uuid', 'uuid', 'uuid'], 'stable'),
    ('diplomail_read', ARRAY['uuid', 'uuid', 'uuid'], 'volatile'), ('diplomail_delete', ARRAY['uuid', 'uuid', 'uuid'], 'volatile'),
    ('diplomail_unread_list', ARRAY['uuid'], 'stable');
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, p::name[], format('%s may execute %s(): %s', r, name, p <> '{}'))
  FROM functions, (VALUES ('backend_api', '{EXECUTE}'), ('backend_worker', '{}'), ('backend_push', '{}')) AS t(r, p);

-- ann owns and plays, bob and cid play, dan is invited, eve sees nothing, fay runs a public game without a seat.
SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid', 'monthly') AS cid, pg_temp.person('dan') AS dan, pg_temp.person('eve') AS eve,
       pg_temp.person('fay') AS fay, pg_temp.person('gus') AS gus, gen_random_uuid() AS nobody \gset
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas"}') AS game, pg_temp.public_game(:'fay') AS public \gset
SELECT pg_temp.join(:'game', :'bob', 'Betas') AS bobs, pg_temp.join(:'game', :'cid', 'Chis'), pg_temp.join(:'public', :'gus', 'Gammas') \g /dev/null
SELECT membership_id AS bobs FROM backend.memberships WHERE game_id = :'game' AND user_id = :'bob' \gset
INSERT INTO backend.invites (game_id, inviter_user_id, invited_user_id, expires_at) VALUES (:'game', :'ann', :'dan', backend.now() + interval '1 day');
CREATE FUNCTION pg_temp.sent(p_user_id uuid, p_game_id uuid, p_to jsonb, p_more jsonb DEFAULT '{}') RETURNS text
LANGUAGE plpgsql SET role = backend_api
AS $$
DECLARE
    v_body jsonb;
BEGIN
    v_body := (api.diplomail_send(p_user_id, p_game_id, jsonb_build_object('recipients', p_to, 'body', 'x') || p_more)).body::jsonb;
    RETURN concat_ws(' ', v_body ->> 'kind', coalesce(v_body ->> 'sender_race_name', '-'), v_body ->> 'recipients');
EXCEPTION WHEN SQLSTATE 'GX400' OR SQLSTATE 'GX403' OR SQLSTATE 'GX404' OR SQLSTATE 'GX422' THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END;
$$;

-- Who may write to whom.
SELECT is(pg_temp.sent(u::uuid, g::uuid, t, m), r, d) FROM (VALUES
    (:'bob', :'game', '["Chis"]'::jsonb, '{}'::jsonb, 'personal Betas ["Chis"]', 'a member to another'),
    (:'bob', :'game', '["Chis", "Alphas"]', '{}', 'personal Betas ["Alphas", "Chis"]', 'to several'),
    (:'bob', :'game', '"all"', '{}', 'GX403 tier_required', 'not to all on the free tier'),
    (:'cid', :'game', '"all"', '{}', 'personal Chis ["Alphas", "Betas"]', 'to all on a paid one'),
    (:'bob', :'game', '["Betas"]', '{}', 'GX422 recipient_not_found', 'not to oneself'),
    (:'bob', :'game', '["Gammas"]', '{}', 'GX422 recipient_not_found', 'not to a race of another game'),
    (:'bob', :'game', '["Chis"]', '{"kind": "admin"}', 'GX403 forbidden', 'not as who runs the game'),
    (:'ann', :'game', '["Betas"]', '{}', 'personal Alphas ["Betas"]', 'an owner writes to one as another'),
    (:'ann', :'game', '["Betas"]', '{"kind": "admin"}', 'admin Alphas ["Betas"]', 'or as who runs the game'),
    (:'ann', :'game', '"all"', '{}', 'admin Alphas ["Betas", "Chis"]', 'to all as who runs it, on any tier'),
    (:'ann', :'game', '"all"', '{"kind": "personal"}', 'GX403 tier_required', 'as another they need a tier'),
    (:'fay', :'public', '["Gammas"]', '{}', 'admin - ["Gammas"]', 'an owner without a seat runs the game'),
    (:'fay', :'public', '["Gammas"]', '{"kind": "personal"}', 'GX403 forbidden', 'and is no member'),
    (:'dan', :'game', '["Betas"]', '{}', 'GX403 forbidden', 'who is invited is no member yet'),
    (:'eve', :'public', '["Gammas"]', '{}', 'GX403 forbidden', 'nor is who sees a public game'),
    (:'eve', :'game', '["Betas"]', '{}', 'GX404 game_not_found', 'who does not see it finds none'),
    (:'ann', :'nobody', '["Betas"]', '{}', 'GX404 game_not_found', 'nor does anybody where there is none'),
    (:'nobody', :'game', '["Betas"]', '{}', 'GX404 account_not_found', 'nor nobody'),
    (:'bob', :'game', '["Chis"]', '{"body": " "}', 'GX400 invalid_request', 'nothing is not written'),
    (:'bob', :'game', '["Chis"]', '{"subject": "\u200b"}', 'GX400 invalid_request', 'nor about nothing')) AS t(u, g, t, m, r, d);
SELECT pg_temp.sanction(:'bob', 'diplomail_block', backend.now() + interval '1 second'), pg_temp.sanction(:'fay', 'private_game_manage_block', backend.now() + interval '1 second') \g /dev/null
SELECT is(pg_temp.sent(:'bob', :'game', '["Chis"]'), 'GX403 sanctioned', 'who is blocked does not write');
SELECT is(pg_temp.sent(:'fay', :'public', '["Gammas"]'), 'GX403 sanctioned', 'nor does an owner who may not run games');
SELECT pg_temp.advance('1 second') \g /dev/null
SELECT is(pg_temp.sent(:'bob', :'game', '["Chis"]'), 'personal Betas ["Chis"]', 'but when the block is over');

-- A fresh start, with one message.
SELECT backend.diplomail_remove(ARRAY(SELECT message_id FROM backend.diplomail_messages)) \g /dev/null
SELECT body, location FROM api.diplomail_send(:'ann', :'game', '{"recipients": ["Betas"], "subject": "Secret", "body": "For Betas"}') \gset
SELECT :'body'::jsonb ->> 'message_id' AS message \gset
SELECT is(:'location', format('/api/v1/user/games/%s/mail/messages/%s', :'game', :'message'), 'it says where it is');

-- Nobody reads what was not sent to them, by any parameter.
SET LOCAL ROLE backend_api;
SELECT is((api.diplomail_get(u::uuid, :'game', :'message')::jsonb) ->> 'body', 'For Betas', 'who wrote it and who got it read it') FROM unnest(ARRAY[:'ann', :'bob']) AS u;
SELECT throws_ok(format('SELECT api.%s(%L, %L, %L)', f, u, :'game', :'message'), 'GX404', 'message_not_found', format('%s() is for nobody else', f))
  FROM unnest(ARRAY['diplomail_get', 'diplomail_read', 'diplomail_delete']) AS f, unnest(ARRAY[:'cid', :'dan', :'eve', :'fay']) AS u;
SELECT throws_ok(format('SELECT api.%s(%L, %L, %L)', f, :'bob', :'public', :'message'), 'GX404', 'message_not_found', format('nor by %s() of another game', f))
  FROM unnest(ARRAY['diplomail_get', 'diplomail_read', 'diplomail_delete']) AS f;
SELECT throws_ok(format('SELECT api.diplomail_read(%L, %L, %L)', :'ann', :'game', :'message'), 'GX404', 'message_not_found', 'who wrote it does not mark it as read');
SELECT is(api.diplomail_inbox_list(u::uuid, :'game', 10, NULL)::jsonb -> 'items', '[]', 'nobody else has it') FROM unnest(ARRAY[:'ann', :'cid', :'dan']) AS u;
SELECT is(api.diplomail_sent_list(u::uuid, :'game', 10, NULL)::jsonb -> 'items', '[]', 'nor wrote it') FROM unnest(ARRAY[:'bob', :'cid', :'dan']) AS u;
SELECT throws_ok(format('SELECT api.%s(%L, %L, 10, NULL)', f, :'eve', :'game'), 'GX404', 'game_not_found', format('%s() of a game that is not seen', f))
  FROM unnest(ARRAY['diplomail_inbox_list', 'diplomail_sent_list']) AS f;
SELECT is(api.diplomail_unread_list(u::uuid)::jsonb, '{"items": []}', 'nor is it counted') FROM unnest(ARRAY[:'ann', :'cid']) AS u;
SELECT throws_ok(format(q, :'nobody'), 'GX404', 'account_not_found', 'somebody is needed')
  FROM (VALUES ('SELECT api.diplomail_unread_list(%L)'), ('SELECT api.diplomail_get(%L, gen_random_uuid(), gen_random_uuid())')) AS t(q);
RESET ROLE;

-- Read, counted, deleted.
SELECT is(api.diplomail_unread_list(:'bob')::jsonb, jsonb_build_object('items', jsonb_build_array(jsonb_build_object('game_id', :'game', 'unread_count', 1))), 'it is not read yet');
SELECT is(api.diplomail_read(:'bob', :'game', :'message')::jsonb ->> 'read_at', backend.ts(backend.now()), 'it is read');
SELECT is(api.diplomail_unread_list(:'bob')::jsonb, '{"items": []}', 'and counted no more');
SELECT backend.ts(backend.now()) AS read_at \gset
SELECT pg_temp.advance('1 second') \g /dev/null
SELECT is(api.diplomail_read(:'bob', :'game', :'message')::jsonb ->> 'read_at', :'read_at', 'reading it again changes nothing');
SELECT is(api.diplomail_get(:'ann', :'game', :'message')::jsonb -> 'read_at', 'null', 'who wrote it is not told');
SELECT is(api.diplomail_delete(:'bob', :'game', :'message'), NULL, 'a reader deletes it');
SELECT throws_ok(format('SELECT api.%s(%L, %L, %L)', f, :'bob', :'game', :'message'), 'GX404', 'message_not_found', format('%s() finds it no more', f))
  FROM unnest(ARRAY['diplomail_get', 'diplomail_read', 'diplomail_delete']) AS f;
SELECT is(api.diplomail_inbox_list(:'bob', :'game', 10, NULL)::jsonb -> 'items', '[]', 'nor does their list');
SELECT is(jsonb_array_length(api.diplomail_sent_list(:'ann', :'game', 10, NULL)::jsonb -> 'items'), 1, 'who wrote it has it still');
SELECT api.diplomail_delete(:'ann', :'game', :'message') \g /dev/null
SELECT is(api.diplomail_sent_list(:'ann', :'game', 10, NULL)::jsonb -> 'items', '[]', 'until they delete it too');
SELECT throws_ok(format('SELECT api.diplomail_delete(%L, %L, %L)', :'ann', :'game', :'message'), 'GX404', 'message_not_found', 'once');

-- Pages.
SELECT api.diplomail_send(:'ann', :'game', jsonb_build_object('recipients', ARRAY['Betas'], 'body', n::text)) FROM generate_series(1, 3) AS n \g /dev/null
SELECT is(jsonb_path_query_array(api.diplomail_inbox_list(:'bob', :'game', 2, NULL)::jsonb, '$.items[*].body'), '["3", "2"]', 'the newest first');
SELECT api.diplomail_inbox_list(:'bob', :'game', 2, NULL)::jsonb ->> 'next_cursor' AS inbox, api.diplomail_sent_list(:'ann', :'game', 2, NULL)::jsonb ->> 'next_cursor' AS sent \gset
SELECT is(jsonb_path_query_array(api.diplomail_inbox_list(:'bob', :'game', 2, :'inbox')::jsonb, '$.items[*].body'), '["1"]', 'then the rest');
SELECT is(jsonb_path_query_array(api.diplomail_sent_list(:'ann', :'game', 2, :'sent')::jsonb, '$.items[*].body'), '["1"]', 'here too');
SELECT throws_ok(format('SELECT api.%s(%L, %L, 2, %L)', f, u, :'game', c), 'GX400', 'invalid_cursor', 'a list has its own')
  FROM (VALUES ('diplomail_inbox_list', :'cid', :'inbox'), ('diplomail_sent_list', :'bob', :'sent'), ('diplomail_inbox_list', :'ann', :'sent')) AS t(f, u, c);

-- After removal.
SELECT api.membership_remove(:'ann', :'game', :'bobs') \g /dev/null
SELECT is(pg_temp.sent(:'ann', :'game', '["Betas"]'), 'GX422 recipient_not_found', 'who was removed is written to no more');
SELECT is(pg_temp.sent(:'bob', :'game', '["Chis"]'), 'GX404 game_not_found', 'nor do they write');
SELECT api.diplomail_send(:'ann', :'game', '{"recipients": "all", "body": "Later"}') \g /dev/null
SELECT is(jsonb_path_query_array(api.diplomail_inbox_list(:'bob', :'game', 10, NULL)::jsonb, '$.items[*].kind'), '["system", "personal", "personal", "personal"]', 'they keep what they had, and are told that they were removed');
SELECT is(api.diplomail_unread_list(:'bob')::jsonb #>> '{items,0,unread_count}', '4', 'which they can read');

-- Who may do nothing may not write or read either.
SELECT backend.account_delete(:'cid') \g /dev/null
SELECT is((SELECT count(*) FROM backend.diplomail_recipients WHERE user_id = :'cid'), 0::bigint, 'what somebody was sent goes with them');
SELECT pg_temp.sanction(:'dan', 'login_block') \g /dev/null
CREATE FUNCTION pg_temp.asked(p_user_id uuid, p_game_id uuid) RETURNS SETOF text
LANGUAGE sql
BEGIN ATOMIC
    SELECT pg_temp.answer(format(q, p_user_id, p_game_id))
      FROM (VALUES ('SELECT api.diplomail_send(%L, %L, ''{"recipients": "all", "body": "x"}'')'), ('SELECT api.diplomail_inbox_list(%L, %L, 1, NULL)'),
                   ('SELECT api.diplomail_sent_list(%L, %L, 1, NULL)'), ('SELECT api.diplomail_get(%L, %L, gen_random_uuid())'), ('SELECT api.diplomail_read(%L, %L, gen_random_uuid())'),
                   ('SELECT api.diplomail_delete(%L, %L, gen_random_uuid())'), ('SELECT api.diplomail_unread_list(%L)')) AS t(q);
END;
SELECT is(a, 'GX403 account_deleted', 'who is gone is refused') FROM pg_temp.asked(:'cid', :'game') AS a;
SELECT is(a, 'GX403 sanctioned', 'and who may not sign in') FROM pg_temp.asked(:'dan', :'game') AS a;
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'eve';
SELECT is(a, 'GX403 account_blocked', 'and who is blocked for good') FROM pg_temp.asked(:'eve', :'game') AS a;
SELECT throws_ok(format('SELECT api.diplomail_unread_list(%L)', :'cid'), 'GX403', 'account_deleted', 'that is account_deleted');
SELECT throws_ok(format('SELECT api.diplomail_unread_list(%L)', :'eve'), 'GX403', 'account_blocked', 'that is account_blocked');
SELECT throws_ok(format('SELECT api.diplomail_unread_list(%L)', :'dan'), 'GX403', 'sanctioned', 'that is sanctioned');
SELECT throws_ok(format('SELECT api.diplomail_send(%L, %L, ''{"recipients": "all", "body": "x", "kind": "personal"}'')', :'ann', :'game'), 'GX403', 'tier_required', 'that is tier_required');
SELECT throws_ok(format('SELECT api.diplomail_send(%L, %L, ''{"recipients": ["Zorg"], "body": "x"}'')', :'ann', :'game'), 'GX422', 'recipient_not_found', 'that is recipient_not_found');
SELECT throws_ok(format('SELECT api.diplomail_send(%L, %L, ''{"recipients": ["Zorg"], "body": " "}'')', :'ann', :'game'), 'GX400', 'invalid_request', 'that is invalid_request');
SELECT throws_ok(format('SELECT api.diplomail_send(%L, %L, ''{"recipients": ["Zorg"], "body": "x"}'')', :'gus', :'public'), 'GX422', 'recipient_not_found', 'nobody of another game is here');
SELECT throws_ok(format('SELECT api.diplomail_send(%L, %L, ''{"recipients": ["Zorg"], "body": "x", "kind": "admin"}'')', :'gus', :'public'), 'GX403', 'forbidden', 'that is forbidden');
SELECT is((SELECT count(*) FROM backend.invariants_diplomail), 0::bigint, 'nothing is as it must not be');

SELECT * FROM finish();
ROLLBACK;
