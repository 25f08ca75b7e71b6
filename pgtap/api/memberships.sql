-- Test galaxy-backend:api/memberships

BEGIN;
SELECT plan(63);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], returns text, volatility text);
INSERT INTO functions VALUES
('membership_list', ARRAY['uuid', 'uuid', 'integer', 'text'], 'text', 'stable'),
    ('membership_remove', ARRAY['uuid', 'uuid', 'uuid'], 'text', 'volatile'),
    ('membership_block', ARRAY['uuid', 'uuid', 'uuid'], 'text', 'volatile');
SELECT function_returns('api', name, arguments, returns, format('%s() answers %s', name, returns)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

SELECT pg_temp.person('ann', 'monthly') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('eve') AS eve, gen_random_uuid() AS nobody \gset
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas"}') AS game, pg_temp.game(:'ann') AS other \gset
SELECT pg_temp.join(:'game', :'bob', 'Betas') AS bobs \gset
SELECT pg_temp.join(:'game', :'cid', 'Gammas') AS cids \gset
UPDATE backend.memberships SET status = 'removed', ended_at = backend.now() WHERE membership_id = :'cids';
CREATE FUNCTION pg_temp.races(p_page text) RETURNS text[]
LANGUAGE sql
RETURN (SELECT coalesce(array_agg(i ->> 'race_name' ORDER BY n), '{}') FROM jsonb_array_elements(p_page::jsonb -> 'items') WITH ORDINALITY AS t(i, n));

SET LOCAL ROLE backend_api;
SELECT is(pg_temp.races(api.membership_list(:'ann', :'game', 50, NULL)), ARRAY['Gammas', 'Betas', 'Alphas'], 'who sits, or sat, in a game, newest first');
SELECT is(pg_temp.races(api.membership_list(:'bob', :'game', 50, NULL)), ARRAY['Gammas', 'Betas', 'Alphas'], 'a member sees it too');
SELECT is(
    api.membership_list(:'ann', :'game', 1, NULL)::jsonb -> 'items' -> 0 ->> 'status', 'removed', 'with how it is with each');
SELECT is(
    (SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(api.membership_list(:'ann', :'game', 1, NULL)::jsonb -> 'items' -> 0) AS k),
    ARRAY['ended_at', 'game_id', 'joined_at', 'membership_id', 'planets', 'population', 'race_name', 'status', 'user_id'], 'and nothing that the contract does not name');
SELECT api.membership_list(:'ann', :'game', 2, NULL) AS page1 \gset
SELECT api.membership_list(:'ann', :'game', 2, :'page1'::jsonb ->> 'next_cursor') AS page2 \gset
SELECT is(pg_temp.races(:'page1') || pg_temp.races(:'page2'), ARRAY['Gammas', 'Betas', 'Alphas'], 'in pages');
SELECT is(:'page2'::jsonb -> 'next_cursor', 'null', 'of which the last says that it is');
SELECT is(pg_temp.races(api.membership_list(:'ann', :'other', 50, NULL)), '{}', 'a game that nobody sits in has none');
SELECT throws_ok(format('SELECT api.membership_list(%L, %L, 2, %L)', :'ann', :'other', :'page1'::jsonb ->> 'next_cursor'), 'GX400', 'invalid_cursor', 'a cursor is of one game''s list');
SELECT throws_ok(format('SELECT api.membership_list(%L, %L, 50, NULL)', u, g), 'GX404', 'game_not_found', d)
  FROM (VALUES (:'eve', :'game', 'for others there is no game'), (:'cid', :'game', 'nor for who has gone'), (:'ann', :'nobody', 'nor where there is none')) AS t(u, g, d);
RESET ROLE;
SELECT api.invite_create(:'ann', :'game', jsonb_build_object('invited_user_id', :'eve'), NULL, NULL) \g /dev/null
SELECT throws_ok(format('SELECT api.membership_list(%L, %L, 50, NULL)', :'eve', :'game'), 'GX403', 'forbidden', 'who is only invited sees the game, not its members');
SELECT pg_temp.plant(format('UPDATE backend.games SET visibility = ''public'', owner_user_id = NULL WHERE game_id = %L', :'game')) \g /dev/null
SELECT is(cardinality(pg_temp.races(api.membership_list(:'cid', :'game', 50, NULL))), 3, 'everybody sees a public one''s');

-- Those who may not.
SELECT throws_ok(format('SELECT api.membership_list(%L, %L, 50, NULL)', :'nobody', :'game'), 'GX404', 'account_not_found', 'the list is for somebody');
SELECT pg_temp.sanction(:'ann', 'login_block') \g /dev/null
SELECT throws_ok(format('SELECT api.membership_list(%L, %L, 50, NULL)', :'ann', :'game'), 'GX403', 'sanctioned', 'who may sign in');
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'ann';
SELECT throws_ok(format('SELECT api.membership_list(%L, %L, 50, NULL)', :'ann', :'game'), 'GX403', 'account_blocked', 'and is not blocked');
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'ann';
SELECT throws_ok(format('SELECT api.membership_list(%L, %L, 50, NULL)', :'ann', :'game'), 'GX403', 'account_deleted', 'nor gone');

-- Leaving, removing, blocking; who may do what in which state is proved with backend/application_rules.
SELECT pg_temp.person('fay', 'permanent') AS fay, pg_temp.person('gus') AS gus, pg_temp.person('hal') AS hal, pg_temp.person('ida') AS ida \gset
SELECT pg_temp.game(:'fay', '{"race_name": "Fays"}') AS seats \gset
SELECT api.game_open_enrollment(:'fay', :'seats') \g /dev/null
SELECT pg_temp.join(:'seats', :'gus', 'Gusts') AS guss, pg_temp.join(:'seats', :'hal', 'Halls') AS hals \gset
SELECT membership_id AS fays FROM backend.memberships WHERE user_id = :'fay' \gset
DELETE FROM backend.notification_routes;
DELETE FROM backend.notifications;
SELECT throws_ok(format('SELECT api.membership_remove(%L, %L, %L)', :'gus', :'seats', :'hals'), 'GX403', 'forbidden', 'a member removes nobody else');
SELECT throws_ok(format('SELECT api.membership_remove(%L, %L, %L)', :'ida', :'seats', :'hals'), 'GX404', 'game_not_found', 'for others there is no game');
SELECT throws_ok(format('SELECT api.membership_remove(%L, %L, %L)', :'fay', :'seats', :'nobody'), 'GX404', 'membership_not_found', 'a seat is one that there is');
SELECT is(
    (SELECT j - ARRAY['membership_id', 'joined_at'] FROM (SELECT api.membership_remove(:'gus', :'seats', :'guss')::jsonb AS j OFFSET 0) AS t),
    jsonb_build_object('game_id', :'seats', 'user_id', :'gus', 'race_name', 'Gusts', 'status', 'removed', 'ended_at', backend.ts(backend.now()), 'planets', NULL, 'population', NULL),
    'a member leaves');
SELECT is((SELECT count(*) FROM backend.notifications), 0::bigint, 'and knows it');
SELECT is((SELECT count(*) FROM backend.race_names WHERE user_id = :'gus' AND released_at IS NULL), 0::bigint, 'their name is free');
SELECT is(api.membership_remove(:'fay', :'seats', :'hals')::jsonb ->> 'status', 'removed', 'an owner removes');
SELECT is((SELECT payload ->> 'reason' FROM backend.notifications WHERE kind = 'lobby.membership.removed' AND user_id = :'hal'), 'removed_by_owner', 'which is told');
SELECT throws_ok(format('SELECT api.membership_remove(%L, %L, %L)', :'fay', :'seats', :'hals'), 'GX409', 'invalid_transition', 'once');
SELECT pg_temp.sanction(:'fay', 'private_game_manage_block') \g /dev/null
SELECT throws_ok(format('SELECT api.membership_block(%L, %L, %L)', :'fay', :'seats', :'guss'), 'GX403', 'sanctioned', 'an owner under a block removes nobody');
SELECT is(pg_temp.undone('SELECT 1', format('SELECT api.membership_remove(%L, %L, %L)::jsonb ->> ''status''', :'fay', :'seats', :'fays')), 'removed', 'but may leave');
DELETE FROM backend.sanction_active;

-- Coming back.
CREATE FUNCTION pg_temp.invited(p_user_id uuid, p_created_at timestamptz) RETURNS uuid
LANGUAGE sql
BEGIN ATOMIC
    -- What came before what is told by the ids.
    INSERT INTO backend.invites (invite_id, game_id, inviter_user_id, code_hash, expires_at, created_at)
    SELECT CASE WHEN p_created_at < backend.now() THEN overlay(gen_random_uuid()::text PLACING '00000000-0000-7' FROM 1 FOR 15)::uuid ELSE backend.uuid_v7() END, m.game_id, g.owner_user_id, sha256((p_user_id::text || p_created_at)::bytea), backend.now() + interval '1 day', p_created_at
      FROM backend.memberships AS m JOIN backend.games AS g USING (game_id) WHERE m.user_id = p_user_id
    RETURNING invite_id;
END;
SELECT pg_temp.invited(:'gus', backend.now() - interval '1 hour') AS before_gus, pg_temp.invited(:'hal', backend.now() - interval '1 hour') AS before_hal,
       pg_temp.invited(:'hal', backend.now() + interval '1 microsecond') AS after_hal \gset
SELECT is(pg_temp.replied(format('SELECT backend.invite_redeem(%L, %L, ''Gusts'')', :'before_gus', :'gus')), '200', 'who left comes back with any invite');
SELECT is(pg_temp.replied(format('SELECT backend.invite_redeem(%L, %L, ''Halls'')', :'before_hal', :'hal')), 'GX422 eligibility_denied', 'who was removed not with one of before');
SELECT is(pg_temp.replied(format('SELECT backend.invite_redeem(%L, %L, ''Halls'')', :'after_hal', :'hal')), '200', 'but with a new one');
SELECT is((SELECT status || coalesce(ended_by, '') FROM backend.memberships WHERE membership_id = :'hals'), 'active', 'in the seat that they had');
SELECT is(api.membership_block(:'fay', :'seats', :'hals')::jsonb ->> 'status', 'blocked', 'an owner blocks');
SELECT is((SELECT count(*) FROM backend.notifications WHERE kind = 'lobby.membership.blocked' AND user_id = :'hal'), 1::bigint, 'which is told');
SELECT pg_temp.invited(:'hal', backend.now() + interval '2 microseconds') AS again_hal \gset
SELECT is(pg_temp.replied(format('SELECT backend.invite_redeem(%L, %L, ''Halls'')', :'again_hal', :'hal')), 'GX422 eligibility_denied', 'who is blocked does not come back');

-- After the start the race is to be banished.
SELECT pg_temp.bring(:'seats', 'draft') \g /dev/null
SELECT api.game_ready_to_start(:'fay', :'seats') \g /dev/null
SELECT api.game_start(:'fay', :'seats') \g /dev/null
SELECT pg_temp.started(:'seats') \g /dev/null
SELECT api.membership_remove(:'gus', :'seats', :'guss') \g /dev/null
SELECT is((SELECT banish_wanted_at FROM backend.memberships WHERE membership_id = :'guss'), backend.now(), 'who leaves a game that runs is banished at its engine');
SELECT is_empty(format('SELECT * FROM backend.invariants_games WHERE object_id = %L', :'seats'), 'nothing is wrong with it');
SELECT throws_ok(format('SELECT api.%I(%L, %L, %L)', f, u, :'seats', :'guss'), s, c, format('%s is for nobody whom %s', f, c))
  FROM unnest(ARRAY['membership_remove', 'membership_block']) AS f, (VALUES (:'nobody', 'GX404', 'account_not_found')) AS t(u, s, c);
SELECT pg_temp.sanction(:'fay', 'login_block') \g /dev/null
SELECT throws_ok(format('SELECT api.%I(%L, %L, %L)', f, :'fay', :'seats', :'guss'), 'GX403', 'sanctioned', format('%s is for who may sign in', f))
  FROM unnest(ARRAY['membership_remove', 'membership_block']) AS f;
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'fay';
SELECT throws_ok(format('SELECT api.%I(%L, %L, %L)', f, :'fay', :'seats', :'guss'), 'GX403', 'account_blocked', format('%s is for nobody who is blocked', f))
  FROM unnest(ARRAY['membership_remove', 'membership_block']) AS f;
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'fay';
SELECT throws_ok(format('SELECT api.%I(%L, %L, %L)', f, :'fay', :'seats', :'guss'), 'GX403', 'account_deleted', format('%s is for nobody who is gone', f))
  FROM unnest(ARRAY['membership_remove', 'membership_block']) AS f;

SELECT * FROM finish();
ROLLBACK;
