-- Test galaxy-backend:api/invites

BEGIN;
SELECT plan(202);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], returns text, volatility text);
INSERT INTO functions VALUES
    ('invite_create', ARRAY['uuid', 'uuid', 'jsonb', 'text', 'bytea'], 'api.reply', 'volatile'), ('invite_list', ARRAY['uuid', 'uuid', 'integer', 'text'], 'text', 'stable'),
    ('invite_redeem', ARRAY['uuid', 'uuid', 'uuid', 'jsonb', 'bytea'], 'api.reply', 'volatile'), ('invite_redeem_by_code', ARRAY['uuid', 'jsonb', 'bytea'], 'api.reply', 'volatile'),
('invite_get', ARRAY['uuid', 'uuid', 'uuid'], 'text', 'stable'),
    ('my_invite_list', ARRAY['uuid', 'integer', 'text'], 'text', 'stable'),
    ('invite_decline', ARRAY['uuid', 'uuid', 'uuid'], 'text', 'volatile'),
    ('invite_revoke', ARRAY['uuid', 'uuid', 'uuid'], 'text', 'volatile');
SELECT function_returns('api', name, arguments, returns, format('%s() answers %s', name, returns)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

SELECT pg_temp.person('ann', 'monthly') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('eve') AS eve, pg_temp.person('dan') AS dan,
       gen_random_uuid() AS nobody \gset
SELECT pg_temp.game(:'ann') AS game, pg_temp.game(:'ann') AS other \gset

-- For a person.
SET LOCAL ROLE backend_api;
SELECT (r).status, (r).body, (r).location FROM (SELECT api.invite_create(:'ann', :'game', jsonb_build_object('invited_user_id', :'bob'), NULL, NULL) AS r OFFSET 0) AS t \gset
SELECT :'body'::jsonb ->> 'invite_id' AS for_bob \gset
SELECT is(:status, 201, 'an invite is created');
SELECT is(:'location', format('/api/v1/user/lobby/games/%s/invites/%s', :'game', :'for_bob'), 'and is found there');
SELECT is(
    :'body'::jsonb - ARRAY['invite_id', 'expires_at', 'created_at'],
    jsonb_build_object('game_id', :'game', 'inviter_user_id', :'ann', 'invited_user_id', :'bob', 'status', 'created'), 'for a person it has no code');
RESET ROLE;
SELECT is(:'body'::jsonb ->> 'expires_at', backend.ts(backend.now() + interval '7 days'), 'it is good for seven days');
SELECT results_eq(
    $$SELECT kind, user_id, payload FROM backend.notifications$$,
    format($$VALUES ('lobby.invite.received', %L::uuid, jsonb_build_object('game_id', %L::uuid, 'inviter_user_id', %L::uuid))$$, :'bob', :'game', :'ann'), 'who is invited is told');
SELECT is((SELECT code_hash FROM backend.invites WHERE invite_id = :'for_bob'), NULL, 'and nobody else gets in with it');
-- A code that came with it is not used.
SELECT (api.invite_create(:'ann', :'game', jsonb_build_object('invited_user_id', :'cid'), 'code', sha256('code'))).body::jsonb ? 'code' AS shown \gset
SELECT is(:'shown'::boolean, false, 'not even where one was at hand');
-- One person, one live invite to a game.
SELECT throws_ok(format('SELECT api.invite_create(%L, %L, %L, NULL, NULL)', :'ann', :'game', jsonb_build_object('invited_user_id', :'cid')), 'GX409', 'already_invited',
    'who has an invite is not invited again');
SELECT lives_ok(format('SELECT api.invite_create(%L, %L, %L, NULL, NULL)', :'ann', :'other', jsonb_build_object('invited_user_id', :'cid')), 'but to another game');
UPDATE backend.invites SET expires_at = backend.now() WHERE invited_user_id = :'cid' AND game_id = :'game';
SELECT is((SELECT backend.invite_json(i) ->> 'status' FROM backend.invites AS i WHERE invited_user_id = :'cid' AND game_id = :'game'), 'expired',
    'one whose time is over is shown as what it is');
SELECT lives_ok(format('SELECT api.invite_create(%L, %L, %L, NULL, NULL)', :'ann', :'game', jsonb_build_object('invited_user_id', :'cid')), 'and then they are');
SELECT results_eq(
    format('SELECT status FROM backend.invites WHERE invited_user_id = %L AND game_id = %L ORDER BY invite_id', :'cid', :'game'), $$VALUES ('expired'), ('created')$$,
    'the old one has expired');
DELETE FROM backend.invites WHERE status = 'expired' OR game_id = :'other';

-- By code.
SET LOCAL backend.invite_default_ttl = '60';
SELECT (r).body FROM (SELECT api.invite_create(:'ann', :'game', '{}', 'ABC', sha256('ABC')) AS r OFFSET 0) AS t \gset
SELECT :'body'::jsonb ->> 'invite_id' AS by_code \gset
RESET backend.invite_default_ttl;
SELECT is(:'body'::jsonb ->> 'code', 'ABC', 'without a person it has a code, which is shown');
SELECT is(:'body'::jsonb ->> 'expires_at', backend.ts(backend.now() + interval '60 seconds'), 'how long it is good is a setting');
SELECT is((SELECT to_jsonb(i)::text ~ 'ABC' FROM backend.invites AS i WHERE invite_id = :'by_code'), false, 'its code is not kept');
SELECT is((SELECT code_hash FROM backend.invites WHERE invite_id = :'by_code'), sha256('ABC'), 'only what it can be known by');
SELECT is((SELECT count(*) FROM backend.notifications WHERE user_id <> :'cid'), 1::bigint, 'nobody is told');
SELECT is(
    (api.invite_create(:'ann', :'game', jsonb_build_object('expires_at', backend.ts(backend.now() + interval '1 microsecond')), 'X', sha256('X'))).body::jsonb ->> 'expires_at',
    backend.ts(backend.now() + interval '1 microsecond'), 'an end can be named');
SELECT throws_ok(format('SELECT api.invite_create(%L, %L, %L, ''Y'', sha256(''Y''))', :'ann', g, jsonb_build_object('expires_at', backend.ts(backend.now()))),
    'GX400', 'invalid_request', d) FROM (VALUES (:'game', 'that is to come'), (:'nobody', 'which is looked at before the game')) AS t(g, d);

-- Who invites whom to what.
SELECT throws_ok(format('SELECT api.invite_create(%L, %L, ''{}'', ''Y'', sha256(''Y''))', u, g), 'GX' || s, c, d)
  FROM (VALUES (:'eve', :'game', '404', 'game_not_found', 'who does not see a game invites nobody'), (:'ann', :'nobody', '404', 'game_not_found', 'nor anybody to none'),
               (:'bob', :'game', '403', 'forbidden', 'nor who only sees it')) AS t(u, g, s, c, d);
SELECT throws_ok(format('SELECT api.invite_create(%L, %L, ''{}'', ''Y'', sha256(''Y''))', :'eve', :'game'), 'GX404', 'game_not_found', 'it is not there for them');
SELECT throws_ok(format('SELECT api.invite_create(%L, %L, ''{}'', ''Y'', sha256(''Y''))', :'bob', :'game'), 'GX403', 'forbidden', 'or not theirs');
SELECT pg_temp.sanction(:'ann', 'private_game_manage_block') \g /dev/null
SELECT throws_ok(format('SELECT api.invite_create(%L, %L, ''{}'', ''Y'', sha256(''Y''))', :'ann', :'game'), 'GX403', 'sanctioned', 'an owner under a block invites nobody');
DELETE FROM backend.sanction_active;
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'dan';
SELECT throws_ok(format('SELECT api.invite_create(%L, %L, %L, NULL, NULL)', :'ann', :'game', jsonb_build_object('invited_user_id', u)), 'GX422', 'eligibility_denied', d)
  FROM (VALUES (:'nobody', 'somebody who is not there is not invited'), (:'dan', 'nor who is blocked')) AS t(u, d);
UPDATE backend.accounts SET permanent_block = false, deleted_at = backend.now(), email = NULL WHERE user_id = :'dan';
SELECT throws_ok(format('SELECT api.invite_create(%L, %L, %L, NULL, NULL)', :'ann', :'game', jsonb_build_object('invited_user_id', :'dan')), 'GX422', 'eligibility_denied', 'nor who is gone');
INSERT INTO backend.memberships (game_id, user_id, race_name, race_name_canonical) VALUES (:'game', :'eve', 'Evens', backend.race_name_canonical('Evens'));
SELECT throws_ok(format('SELECT api.invite_create(%L, %L, %L, NULL, NULL)', :'ann', :'game', jsonb_build_object('invited_user_id', :'eve')), 'GX409', 'already_member', 'nor who has a seat');
UPDATE backend.memberships SET status = 'blocked', ended_at = backend.now() WHERE user_id = :'eve';
SELECT throws_ok(format('SELECT api.invite_create(%L, %L, %L, NULL, NULL)', :'ann', :'game', jsonb_build_object('invited_user_id', :'eve')), 'GX422', 'eligibility_denied',
    'nor who was blocked in the game');
DELETE FROM backend.memberships WHERE user_id = :'eve';
CREATE TEMPORARY TABLE at_state (state text, game_id uuid);
DO $$
DECLARE
    v_ann uuid := (SELECT user_id FROM backend.accounts WHERE email = 'ann@example.org');
    v_cid uuid := (SELECT user_id FROM backend.accounts WHERE email = 'cid@example.org');
    v_state text;
    v_game_id uuid;
BEGIN
    PERFORM pg_temp.set_limit(u, l, 50) FROM unnest(ARRAY[v_ann, v_cid]) AS u, unnest(ARRAY['max_owned_private_games', 'max_active_memberships']) AS l;
    FOR v_state IN SELECT DISTINCT to_state FROM backend.state_transitions WHERE machine = 'game' LOOP
        v_game_id := pg_temp.game(v_ann, '{"race_name": "Alphas"}');
        PERFORM pg_temp.join(v_game_id, v_cid, 'Gammas');
        PERFORM pg_temp.bring(v_game_id, v_state);
        INSERT INTO at_state VALUES (v_state, v_game_id);
    END LOOP;
END;
$$;
SELECT is(
    pg_temp.undone(format('SELECT api.invite_create(%L, %L, ''{}'', ''Y'', sha256(''Y''))', :'ann', game_id), 'SELECT ''done'''),
    CASE WHEN state IN ('draft', 'enrollment_open') THEN 'done' ELSE 'GX409 invalid_transition' END, format('inviting to a game that is %s', state))
  FROM at_state ORDER BY state;

-- The list.
CREATE FUNCTION pg_temp.ids(p_page text) RETURNS uuid[]
LANGUAGE sql
RETURN (SELECT coalesce(array_agg((i ->> 'invite_id')::uuid ORDER BY n), '{}') FROM jsonb_array_elements(p_page::jsonb -> 'items') WITH ORDINALITY AS t(i, n));
SELECT is(pg_temp.ids(api.invite_list(:'ann', :'game', 50, NULL)), (SELECT array_agg(invite_id ORDER BY invite_id DESC) FROM backend.invites WHERE game_id = :'game'),
    'an owner sees the invites, newest first');
SELECT is(api.invite_list(:'ann', :'game', 50, NULL) ~ '"code', false, 'never their codes');
SELECT api.invite_list(:'ann', :'game', 3, NULL) AS page1 \gset
SELECT api.invite_list(:'ann', :'game', 3, :'page1'::jsonb ->> 'next_cursor') AS page2 \gset
SELECT is(pg_temp.ids(:'page1') || pg_temp.ids(:'page2'), pg_temp.ids(api.invite_list(:'ann', :'game', 50, NULL)), 'in pages');
SELECT throws_ok(format('SELECT api.invite_list(%L, %L, 3, %L)', :'ann', :'other', :'page1'::jsonb ->> 'next_cursor'), 'GX400', 'invalid_cursor', 'a cursor is of one game''s list');
SELECT throws_ok(format('SELECT api.invite_list(%L, %L, 50, NULL)', :'bob', :'game'), 'GX403', 'forbidden', 'who is invited does not see them');
SELECT throws_ok(format('SELECT api.invite_list(%L, %L, 50, NULL)', :'eve', :'game'), 'GX404', 'game_not_found', 'for others there is no game');

-- Redeeming: who may with which.
SELECT throws_ok(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Betas"}'', sha256(''ABC''))', :'bob'), 'GX409', 'invalid_transition', 'nobody takes a seat before enrolment opens');
SELECT throws_ok(format('SELECT api.invite_redeem(%L, %L, %L, ''{"race_name": "Betas"}'', NULL)', :'bob', :'game', :'for_bob'), 'GX409', 'invalid_transition', 'in either way');
SELECT api.game_open_enrollment(:'ann', :'game') \g /dev/null
SELECT is(
    pg_temp.undone('SELECT 1', format('SELECT pg_temp.replied(%L)', format('SELECT api.invite_redeem(%L, %L, %L, ''{"race_name": "Betas"}'', %s)', u, g, i, h))), e, d)
  FROM (VALUES
    (:'bob', :'game', :'for_bob', 'NULL', '200', 'a person redeems what is for them'),
    (:'eve', :'game', :'for_bob', 'NULL', '404 invite_not_found', 'and nobody else'),
    (:'ann', :'game', :'for_bob', 'NULL', '404 invite_not_found', 'not even who made it'),
    (:'eve', :'game', :'by_code', 'sha256(''ABC'')', '200', 'whoever has the code redeems what has one'),
    (:'eve', :'game', :'by_code', 'sha256(''abc'')', '404 invite_not_found', 'that very code'),
    (:'eve', :'game', :'by_code', 'NULL', '404 invite_not_found', 'and none is no code'),
    (:'eve', :'game', :'for_bob', 'sha256(''ABC'')', '404 invite_not_found', 'a code is of one invite'),
    (:'bob', :'game', :'by_code', 'NULL', '404 invite_not_found', 'an invite of another kind does not help'),
    (:'ann', :'game', :'by_code', 'NULL', '200', 'an owner redeems one of their own making, without its code'),
    (:'bob', :'other', :'for_bob', 'NULL', '404 invite_not_found', 'an invite is to one game'),
    (:'bob', :'game', :'nobody', 'NULL', '404 invite_not_found', 'and is one that there is')
  ) AS t(u, g, i, h, e, d);
SELECT is(pg_temp.replied(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Betas"}'', %s)', :'bob', h)), '404 invite_not_found', d)
  FROM (VALUES ('sha256(''nothing'')', 'a code that was never given is not found'), ('NULL', 'nor is none')) AS t(h, d);

-- What refuses a seat.
UPDATE backend.games SET enrollment_ends_at = backend.now() WHERE game_id = :'game';
SELECT throws_ok(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Betas"}'', sha256(''ABC''))', :'bob'), 'GX422', 'enrollment_ended', 'nobody takes a seat after enrolment''s end');
SELECT throws_ok(format('SELECT api.invite_create(%L, %L, ''{}'', ''Y'', sha256(''Y''))', :'ann', :'game'), 'GX422', 'enrollment_ended', 'nor is anybody invited');
UPDATE backend.games SET enrollment_ends_at = backend.now() + interval '1 day' WHERE game_id = :'game';
SELECT throws_ok(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "x"}'', sha256(''ABC''))', :'bob'), 'GX422', 'invalid_name', 'a seat has a name');
SELECT throws_ok(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "a1phas"}'', sha256(''ABC''))', :'bob'), 'GX422', 'name_taken', 'that nobody else holds, in any game');
SELECT pg_temp.sanction(:'bob', 'game_join_block') \g /dev/null
SELECT throws_ok(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Betas"}'', sha256(''ABC''))', :'bob'), 'GX403', 'sanctioned', 'nobody under a block takes one');
DELETE FROM backend.sanction_active;
SELECT pg_temp.set_limit(:'bob', 'max_active_memberships', 0) \g /dev/null
SELECT throws_ok(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Betas"}'', sha256(''ABC''))', :'bob'), 'GX422', 'limit_reached', 'nor with as many as they may have');
DELETE FROM backend.limit_active WHERE user_id = :'bob';
SELECT is(
    (SELECT j - ARRAY['membership_id', 'joined_at'] FROM (SELECT (api.invite_redeem_by_code(:'bob', '{"race_name": "Betas"}', sha256('ABC'))).body::jsonb AS j OFFSET 0) AS t),
    jsonb_build_object('game_id', :'game', 'user_id', :'bob', 'race_name', 'Betas', 'status', 'active', 'ended_at', NULL, 'planets', NULL, 'population', NULL),
    'then it is theirs');
SELECT is(pg_temp.replied(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Etas"}'', sha256(''ABC''))', :'eve')), '404 invite_not_found', 'a code is good once');
SELECT throws_ok(format('SELECT api.invite_redeem(%L, %L, %L, ''{"race_name": "Etas"}'', NULL)', :'bob', :'game', :'for_bob'), 'GX409', 'already_member', 'a person has one seat');
SELECT (api.invite_create(:'ann', :'game', '{}', 'DEF', sha256('DEF'))).status \g /dev/null
UPDATE backend.memberships SET status = 'blocked', ended_at = backend.now() WHERE game_id = :'game' AND user_id = :'bob';
SELECT throws_ok(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Betas"}'', sha256(''DEF''))', :'bob'), 'GX422', 'eligibility_denied', 'who is blocked there does not come back');
UPDATE backend.games SET max_players = 2 WHERE game_id = :'game';
SELECT pg_temp.join(:'game', :'ann', 'Alphas'), pg_temp.join(:'game', :'cid', 'Gammas') \g /dev/null
SELECT throws_ok(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Etas"}'', sha256(''DEF''))', :'eve'), 'GX422', 'game_full', 'nor does anybody where every seat is taken');

-- One invite, and those for a person.
SELECT pg_temp.person('fay', 'permanent') AS fay, pg_temp.person('gus') AS gus \gset
SELECT pg_temp.game(:'fay') AS offered \gset
SELECT (api.invite_create(:'fay', :'offered', jsonb_build_object('invited_user_id', :'gus'), NULL, NULL)).body AS offer \gset
SELECT :'offer'::jsonb ->> 'invite_id' AS for_gus \gset
SELECT is(api.invite_get(u::uuid, :'offered', :'for_gus')::jsonb, :'offer'::jsonb, d) FROM (VALUES (:'fay', 'an owner reads an invite'), (:'gus', 'who is invited too')) AS t(u, d);
SELECT throws_ok(format('SELECT api.invite_get(%L, %L, %L)', :'cid', :'offered', :'for_gus'), 'GX404', 'invite_not_found', 'others do not');
SELECT is(api.my_invite_list(:'gus', 50, NULL)::jsonb, jsonb_build_object('items', jsonb_build_array(:'offer'::jsonb), 'next_cursor', NULL), 'a person''s invites');
SELECT throws_ok(format('SELECT api.my_invite_list(%L, 50, ''00'')', :'gus'), 'GX400', 'invalid_cursor', 'in pages of their own');
SELECT throws_ok(format('SELECT api.invite_%s(%L, %L, %L)', a, u, :'offered', :'for_gus'), 'GX403', 'forbidden', format('%s is for the other', a))
  FROM (VALUES ('decline', :'fay'), ('revoke', :'gus')) AS t(a, u);
SELECT throws_ok(format('SELECT api.invite_%s(%L, %L, %L)', a, :'cid', :'offered', :'for_gus'), 'GX404', 'invite_not_found', format('for others there is none to %s', a))
  FROM unnest(ARRAY['decline', 'revoke']) AS a;
DELETE FROM backend.notification_routes;
DELETE FROM backend.notifications;
SELECT is(pg_temp.undone('SELECT 1', format('SELECT api.invite_decline(%L, %L, %L)::jsonb ->> ''status'' || (SELECT count(*) FROM backend.notifications)', :'gus', :'offered', :'for_gus')), 'declined0', 'one is declined');
SELECT pg_temp.sanction(:'fay', 'private_game_manage_block') \g /dev/null
SELECT throws_ok(format('SELECT api.invite_revoke(%L, %L, %L)', :'fay', :'offered', :'for_gus'), 'GX403', 'sanctioned', 'an owner under a block takes none back');
DELETE FROM backend.sanction_active;
SELECT is(pg_temp.undone(format('UPDATE backend.invites SET expires_at = backend.now() WHERE invite_id = %L', :'for_gus'),
                         format('SELECT pg_temp.answer(%L)', format('SELECT api.invite_decline(%L, %L, %L)', :'gus', :'offered', :'for_gus'))), 'GX409 invalid_transition', 'one that is over is not');
SELECT is(api.invite_revoke(:'fay', :'offered', :'for_gus')::jsonb ->> 'status', 'revoked', 'one is taken back');
SELECT results_eq('SELECT kind, user_id FROM backend.notifications', format($$VALUES ('lobby.invite.revoked', %L::uuid)$$, :'gus'), 'which is told');
SELECT throws_ok(format('SELECT api.invite_%s(%L, %L, %L)', a, u, :'offered', :'for_gus'), 'GX409', 'invalid_transition', format('then there is nothing to %s', a))
  FROM (VALUES ('decline', :'gus'), ('revoke', :'fay')) AS t(a, u);

-- Who tries codes is slowed down.
SELECT is(pg_temp.replied(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Gusts"}'', sha256(%L))', :'gus', n::text)), '404 invite_not_found', format('wrong code %s', n)) FROM generate_series(1, 20) AS n;
SELECT is(pg_temp.replied(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Gusts"}'', sha256(''DEF''))', :'gus')), '429 too_many_attempts', 'after twenty nothing is looked at, not even a right one');
SELECT is((api.invite_redeem(:'gus', :'offered', :'for_gus', '{"race_name": "Gusts"}', NULL)).body::jsonb -> 'details', '{"retry_after": 3600}', 'in either way, for an hour');
SELECT is(pg_temp.replied(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Gusts"}'', sha256(''none''))', :'fay')), '404 invite_not_found', 'which is nobody else''s business');
SELECT pg_temp.advance('1 hour') \g /dev/null
SELECT is(pg_temp.replied(format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Gusts"}'', sha256(''none''))', :'gus')), '404 invite_not_found', 'then it begins anew');
SELECT is((SELECT failures FROM backend.invite_attempts WHERE user_id = :'gus'), 1, 'at one');
SELECT pg_temp.advance('-1 hour') \g /dev/null

-- Those who may not.
CREATE TEMPORARY TABLE calls (name text, call text);
INSERT INTO calls VALUES
    ('invite_create', format('SELECT api.invite_create(%%L, %L, ''{}'', ''Z'', sha256(''Z''))', :'game')), ('invite_list', format('SELECT api.invite_list(%%L, %L, 50, NULL)', :'game')),
    ('invite_redeem', format('SELECT api.invite_redeem(%%L, %L, %L, ''{"race_name": "Zetas"}'', NULL)', :'game', :'for_bob')),
    ('invite_redeem_by_code', 'SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Zetas"}'', sha256(''DEF''))'),
    ('invite_get', format('SELECT api.invite_get(%%L, %L, %L)', :'game', :'for_bob')), ('my_invite_list', 'SELECT api.my_invite_list(%L, 50, NULL)'),
    ('invite_decline', format('SELECT api.invite_decline(%%L, %L, %L)', :'game', :'for_bob')), ('invite_revoke', format('SELECT api.invite_revoke(%%L, %L, %L)', :'game', :'for_bob'));
SELECT throws_ok(format(call, :'nobody'), 'GX404', 'account_not_found', format('%s is for somebody', name)) FROM calls;
SELECT pg_temp.sanction(:'ann', 'login_block') \g /dev/null
SELECT throws_ok(format(call, :'ann'), 'GX403', 'sanctioned', format('%s is for somebody who may sign in', name)) FROM calls;
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'ann';
SELECT throws_ok(format(call, :'ann'), 'GX403', 'account_blocked', format('%s is for nobody who is blocked', name)) FROM calls;
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'ann';
SELECT throws_ok(format(call, :'ann'), 'GX403', 'account_deleted', format('%s is for nobody who is gone', name)) FROM calls;

-- Who invites themself can take it back as well as decline; what somebody asked for they have with an invite.
SELECT pg_temp.person('gia') AS gia, pg_temp.person('hugo') AS hugo \gset
SELECT pg_temp.public_game(:'gia', '{"game_name": "ΟΔΥΣΣΕΥΣ Straße"}') AS public \gset
SELECT api.game_open_enrollment(:'gia', :'public') \g /dev/null
SELECT ((api.invite_create(:'gia', :'public', jsonb_build_object('invited_user_id', :'gia'), NULL, NULL)).body::jsonb ->> 'invite_id') AS own \gset
SELECT is(api.invite_revoke(:'gia', :'public', :'own')::jsonb ->> 'status', 'revoked', 'one''s own invite can be taken back');
SELECT api.application_create(:'hugo', :'public', '{"race_name": "Hugos"}') \g /dev/null
SELECT ((api.invite_create(:'gia', :'public', jsonb_build_object('invited_user_id', :'hugo'), NULL, NULL)).body::jsonb ->> 'invite_id') AS for_hugo \gset
SELECT (api.invite_redeem(:'hugo', :'public', :'for_hugo', '{"race_name": "Hugos"}', NULL)).status AS redeemed \gset
SELECT is(:'redeemed'::text, '200', 'who has applied may redeem an invite');
SELECT results_eq(format('SELECT status FROM backend.applications WHERE applicant_user_id = %L', :'hugo'), $$VALUES ('withdrawn')$$, 'and has what they applied for');
SELECT is_empty('SELECT * FROM backend.invariants_applications', 'so that nothing of it is open');
SELECT ((api.invite_create(:'gia', :'public', '{}', 'C', sha256('C'))).body::jsonb ->> 'invite_id') AS again \gset
UPDATE backend.games SET enrollment_ends_at = backend.now() WHERE game_id = :'public';
SELECT throws_ok(format($$SELECT api.invite_redeem(%L, %L, %L, '{"race_name": "Hugos", "code": "C"}', sha256('C'))$$, :'hugo', :'public', :'again'), 'GX409', 'already_member', 'who sits is told that, whatever the time');
-- Names of games are found whatever their case; administrators have none for players.
SELECT is(jsonb_array_length(api.game_list(:'hugo', 50, NULL, NULL, q)::jsonb -> 'items'), 1, format('%s finds it', q))
  FROM unnest(ARRAY['οδυσσευς', 'STRASSE', 'straße']) AS q;
INSERT INTO backend.game_history (game_id, action, from_status, to_status, actor_type, actor_id) VALUES (:'public', 'pause', 'running', 'enrollment_open', 'admin', 'root');
SELECT is_empty(
    format($$SELECT FROM jsonb_array_elements(api.game_history_list(%L, %L, 50, NULL)::jsonb -> 'items') AS i WHERE i ->> 'actor_type' = 'admin' AND i -> 'actor_id' <> 'null'$$, :'hugo', :'public'),
    'players do not learn the names of administrators');

SELECT * FROM finish();
ROLLBACK;
