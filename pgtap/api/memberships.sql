-- Test galaxy-backend:api/memberships

BEGIN;
SELECT plan(23);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
SELECT function_returns('api', 'membership_list', ARRAY['uuid', 'uuid', 'integer', 'text'], 'text', 'membership_list() has one answer');
SELECT volatility_is('api', 'membership_list', ARRAY['uuid', 'uuid', 'integer', 'text'], 'stable', 'membership_list() is STABLE');
SELECT is_definer('api', 'membership_list', ARRAY['uuid', 'uuid', 'integer', 'text'], 'membership_list() has its owner''s rights');
SELECT function_privs_are('api', 'membership_list', ARRAY['uuid', 'uuid', 'integer', 'text'], r, p::name[], format('%s may execute it: %s', r, p <> '{}'))
  FROM (VALUES ('backend_api', '{EXECUTE}'), ('backend_worker', '{}'), ('backend_push', '{}')) AS t(r, p);

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

SELECT * FROM finish();
ROLLBACK;
