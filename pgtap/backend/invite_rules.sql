-- Test galaxy-backend:backend/invite_rules

BEGIN;
SELECT plan(38);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v))) FROM (VALUES ('invite_json', 'stable'), ('invites_page', 'stable'), ('invite_refusal', 'stable'), ('invite_insert', 'volatile'), ('invite_end', 'volatile'), ('invite_redeem', 'volatile')) AS t(f, v);
SELECT has_view('backend', 'invariants_invites', 'what must never be seen is a view');
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.invite_redeem(gen_random_uuid(), gen_random_uuid(), 'Zorg')$$, '42501', NULL, 'backend_api redeems through its door only');
RESET ROLE;

SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('dan') AS dan, gen_random_uuid() AS nobody \gset
SELECT pg_temp.game(:'ann', '{"max_players": 2}') AS game \gset
CREATE FUNCTION pg_temp.invite(p_game_id uuid, p_user_id uuid DEFAULT NULL, p_lives interval DEFAULT '1 hour') RETURNS uuid
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO backend.invites (game_id, inviter_user_id, invited_user_id, code_hash, expires_at)
    SELECT p_game_id, g.owner_user_id, p_user_id, CASE WHEN p_user_id IS NULL THEN sha256(gen_random_uuid()::text::bytea) END, backend.now() + p_lives
      FROM backend.games AS g WHERE g.game_id = p_game_id
    RETURNING invite_id;
END;

-- What an invite looks like.
SELECT pg_temp.invite(:'game', :'bob') AS for_bob, pg_temp.invite(:'game') AS by_code \gset
SELECT is(
    (SELECT backend.invite_json(i) FROM backend.invites AS i WHERE invite_id = :'for_bob'),
    jsonb_build_object('invite_id', :'for_bob', 'game_id', :'game', 'inviter_user_id', :'ann', 'invited_user_id', :'bob', 'status', 'created',
                       'expires_at', backend.ts(backend.now() + interval '1 hour'), 'created_at', backend.ts(backend.now())),
    'an invite is shown as the contract says');
SELECT is(
    (SELECT array_agg(k ORDER BY k) FROM backend.invites AS i, jsonb_object_keys(backend.invite_json(i)) AS k WHERE invite_id = :'by_code'),
    ARRAY['created_at', 'expires_at', 'game_id', 'invite_id', 'invited_user_id', 'inviter_user_id', 'status'], 'one by code too, without its code');

-- Redeeming.
SELECT throws_ok(format('SELECT backend.invite_redeem(%L, %L, ''Zorg'')', :'for_bob', :'bob'), 'GX409', 'invalid_transition', 'nobody takes a seat in a draft');
SELECT is(
    pg_temp.refused(format('SELECT backend.invite_redeem(%L, %L, ''Zorg'')', :'for_bob', :'bob')) ->> 'hint',
    '{"from": "draft", "action": "redeem", "allowed": []}', 'and is told that it is one');
SELECT pg_temp.sanction(:'bob', 'game_join_block') \g /dev/null
SELECT throws_ok(format('SELECT backend.invite_redeem(%L, %L, ''Zorg'')', :'for_bob', :'bob'), 'GX403', 'sanctioned', 'after that they are under a block');
DELETE FROM backend.sanction_active;
SELECT pg_temp.bring(:'game', 'enrollment_open') \g /dev/null
SELECT is(pg_temp.replied(format('SELECT backend.invite_redeem(%L, %L, ''Zorg'')', i, :'bob')), '404 invite_not_found', d)
  FROM (VALUES (:'nobody'::uuid, 'an invite that is not there is not found'), (NULL, 'nor is none')) AS t(i, d);
SELECT throws_ok(format('SELECT backend.invite_redeem(%L, %L, ''x'')', :'for_bob', :'bob'), 'GX422', 'invalid_name', 'a seat needs a name');
SELECT is((SELECT status FROM backend.invites WHERE invite_id = :'for_bob'), 'created', 'a refusal leaves the invite as it is');
SELECT is((backend.invite_redeem(:'for_bob', :'bob', ' Zorg ')).body::jsonb ->> 'race_name', 'Zorg', 'a seat is taken');
SELECT results_eq(
    format('SELECT status, redeemed_by_user_id FROM backend.invites WHERE invite_id = %L', :'for_bob'), format($$VALUES ('redeemed', %L::uuid)$$, :'bob'), 'the invite says by whom');
SELECT is(pg_temp.replied(format('SELECT backend.invite_redeem(%L, %L, ''Borg'')', :'for_bob', u)), '404 invite_not_found', 'and is good for one, whoever asks') FROM unnest(ARRAY[:'bob', :'cid']) AS u;
SELECT throws_ok(format('SELECT backend.invite_redeem(%L, %L, ''Borg'')', :'by_code', :'bob'), 'GX409', 'already_member', 'a second seat is none');
SELECT throws_ok(format('SELECT backend.invite_redeem(%L, %L, ''z-o-r-g'')', :'by_code', :'cid'), 'GX422', 'name_taken', 'nor is one under a name that is taken');
SELECT lives_ok(format('SELECT backend.invite_redeem(%L, %L, ''Borg'')', :'by_code', :'cid'), 'the last seat is taken');
SELECT pg_temp.invite(:'game', :'dan') AS late \gset
SELECT throws_ok(format('SELECT backend.invite_redeem(%L, %L, ''Dorg'')', :'late', :'dan'), 'GX422', 'game_full', 'then there is none');
SELECT is((SELECT count(*) FROM backend.race_names WHERE user_id = :'dan'), 0::bigint, 'and nobody holds a name for nothing');

-- Its end.
UPDATE backend.games SET max_players = 4 WHERE game_id = :'game';
SELECT pg_temp.advance('1 hour - 1 microsecond') \g /dev/null
SELECT is(pg_temp.undone(format('SELECT backend.invite_redeem(%L, %L, ''Dorg'')', :'late', :'dan'), 'SELECT ''in'''), 'in', 'an invite is good to its last microsecond');
SELECT pg_temp.advance('1 microsecond') \g /dev/null
SELECT is(pg_temp.replied(format('SELECT backend.invite_redeem(%L, %L, ''Dorg'')', :'late', :'dan')), '404 invite_not_found', 'and then not, though no job has come by');
SELECT pg_temp.advance('-1 hour') \g /dev/null
UPDATE backend.invites SET status = 'expired' WHERE invite_id = :'late';
SELECT pg_temp.invite(:'game', :'dan') AS ended \gset
UPDATE backend.games SET enrollment_ends_at = backend.now() + interval '1 microsecond' WHERE game_id = :'game';
SELECT is(pg_temp.undone(format('SELECT backend.invite_redeem(%L, %L, ''Dorg'')', :'ended', :'dan'), 'SELECT ''in'''), 'in', 'enrolment goes on to its last microsecond');
UPDATE backend.games SET enrollment_ends_at = backend.now() WHERE game_id = :'game';
SELECT throws_ok(format('SELECT backend.invite_redeem(%L, %L, ''Dorg'')', :'ended', :'dan'), 'GX422', 'enrollment_ended', 'and is over at its end, though no job has come by');
UPDATE backend.games SET enrollment_ends_at = backend.now() + interval '1 day' WHERE game_id = :'game';
UPDATE backend.invites SET status = 'revoked' WHERE invite_id = :'ended';
SELECT is(pg_temp.replied(format('SELECT backend.invite_redeem(%L, %L, ''Dorg'')', :'ended', :'dan')), '404 invite_not_found', 'one that was taken back is not there');
SELECT throws_ok(format('UPDATE backend.invites SET status = %L WHERE invite_id = %L', s, :'ended'), 'GX409', 'invalid_transition', format('nor is it %s again', s))
  FROM unnest(ARRAY['created', 'redeemed', 'declined', 'expired']) AS s;
SELECT api.game_ready_to_start(:'ann', :'game') \g /dev/null
SELECT pg_temp.invite(:'game', :'dan') AS closed \gset
SELECT throws_ok(format('SELECT backend.invite_redeem(%L, %L, ''Dorg'')', :'closed', :'dan'), 'GX409', 'invalid_transition', 'enrolment that is closed takes nobody');

-- Invariants.
SELECT results_eq(
    'SELECT invariant, object_id, details FROM backend.invariants_invites',
    format($$VALUES ('open_invite_of_a_game_that_is_closed', %L::uuid, 'ready_to_start')$$, :'closed'), 'an open invite of a game that is closed is listed');
UPDATE backend.invites SET status = 'revoked' WHERE invite_id = :'closed';
SELECT is_empty('SELECT * FROM backend.invariants', 'and nothing else is wrong');

SELECT * FROM finish();
ROLLBACK;
