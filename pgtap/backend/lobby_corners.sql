-- Test of the lobby where rules of several changes meet: what counts against a limit, who is told, what an end leaves behind.

BEGIN;
SELECT plan(25);
\ir ../helpers.psql
\ir ../games.psql

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('eve') AS eve \gset
CREATE FUNCTION pg_temp.leave(p_game_id uuid, p_user_id uuid, p_status text DEFAULT 'removed') RETURNS text
LANGUAGE sql
RETURN (SELECT (backend.membership_end(g, m, p_status, 'owner')).status
          FROM backend.games AS g JOIN backend.memberships AS m USING (game_id) WHERE g.game_id = p_game_id AND m.user_id = p_user_id);
CREATE FUNCTION pg_temp.two(p_owner uuid, p_guest uuid, p_suffix text) RETURNS uuid
LANGUAGE plpgsql
AS $$
DECLARE
    v_game_id uuid := pg_temp.game(p_owner, jsonb_build_object('race_name', 'Alphas ' || p_suffix));
BEGIN
    PERFORM pg_temp.join(v_game_id, p_guest, 'Betas ' || p_suffix);
    RETURN v_game_id;
END;
$$;
COMMENT ON FUNCTION pg_temp.two(uuid, uuid, text) IS 'A private game in draft with its least number of seats taken.';

-- No way to a start goes round the least number of members.
SELECT pg_temp.two(:'ann', :'bob', 'one') AS failed, pg_temp.two(:'ann', :'bob', 'two') AS ready, pg_temp.two(:'ann', :'bob', 'three') AS enrolling \gset
SELECT pg_temp.bring(:'failed', 'start_failed'), pg_temp.bring(:'ready', 'ready_to_start'), pg_temp.bring(:'enrolling', 'enrollment_open') \g /dev/null
SELECT is(pg_temp.undone(format('SELECT api.game_retry_start(%L, %L)', :'ann', :'failed'), 'SELECT ''done'''), 'done', 'with enough members a start is tried again');
SELECT pg_temp.leave(g, :'bob') FROM unnest(ARRAY[:'failed', :'ready', :'enrolling']::uuid[]) AS g \g /dev/null
SELECT is(pg_temp.answer(format(c, g)), 'GX422 not_enough_members', d)
  FROM (VALUES (format('SELECT api.game_retry_start(%L, %%L)', :'ann'), :'failed', 'with one who left it is not tried again'),
               ('SELECT api.admin_game_retry_start(''root'', %L)', :'failed', 'nor by an administrator'),
               ('SELECT api.admin_game_force_start(''root'', %L)', :'enrolling', 'a start is not forced either'),
               (format('SELECT api.game_start(%L, %%L)', :'ann'), :'ready', 'nor made out of what was ready'),
               (format('SELECT api.game_ready_to_start(%L, %%L)', :'ann'), :'enrolling', 'and enrolment does not close')) AS t(c, g, d);
SELECT api.game_cancel(:'ann', g) FROM unnest(ARRAY[:'failed', :'ready', :'enrolling']::uuid[]) AS g \g /dev/null

-- Seats of games that are over count against nobody.
SELECT pg_temp.set_limit(:'cid', 'max_active_memberships', 1) \g /dev/null
SELECT pg_temp.two(:'ann', :'cid', 'four') AS finished \gset
SELECT is(pg_temp.bring(:'finished', 'finished'), 'finished', 'there is a seat in a game that was played');
SELECT pg_temp.two(:'ann', :'cid', 'five') AS cancelled \gset
SELECT is(
    (SELECT count(*) FROM backend.memberships WHERE user_id = :'cid' AND status = 'active'), 2::bigint, 'beside which there is another for who may have one');
SELECT is(pg_temp.bring(:'cancelled', 'cancelled'), 'cancelled', 'that game is called off');
SELECT pg_temp.public_game(:'ann') AS seats \gset
SELECT is(pg_temp.answer(format('SELECT pg_temp.join(%L, %L, %L)', :'seats', :'cid', 'Gammas')), 'done', 'so that there is room for one more');
SELECT is(
    pg_temp.answer(format('SELECT pg_temp.join(%L, %L, %L)', pg_temp.public_game(), :'cid', 'Deltas')), 'GX422 limit_reached', 'and for no other beside it');

-- Public games are no private ones.
SELECT is((api.admin_game_create('root', pg_temp.body(jsonb_build_object('owner_user_id', :'eve')))).status, 201, 'somebody runs a public game') FROM generate_series(1, 2);
SELECT is(pg_temp.replied(format('SELECT api.game_create(%L, pg_temp.body())', :'eve')), '201', 'and may make as many private ones as before');
SELECT is(pg_temp.replied(format('SELECT api.game_create(%L, pg_temp.body())', :'eve')), 'GX422 limit_reached', 'but no more');

-- Whose history it is.
SELECT pg_temp.join(:'seats', :'bob', 'Betas') \g /dev/null
SELECT is(pg_temp.answer(format('SELECT api.game_history_list(%L, %L, 10, NULL)', :'bob', :'seats')), 'done', 'a member reads what has happened to a game');
SELECT pg_temp.leave(:'seats', :'bob'), pg_temp.leave(:'seats', :'cid', 'blocked') \g /dev/null
SELECT is(pg_temp.answer(format('SELECT api.game_history_list(%L, %L, 10, NULL)', u, :'seats')), 'GX403 forbidden', d)
  FROM (VALUES (:'bob', 'who was one does not'), (:'cid', 'nor who was thrown out')) AS t(u, d);

-- A seat that is taken again is taken then.
SELECT pg_temp.advance('1 day'), pg_temp.join(:'seats', :'bob', 'Epsilons') \g /dev/null
SELECT results_eq(
    format('SELECT status, race_name, joined_at, ended_at, ended_by FROM backend.memberships WHERE game_id = %L AND user_id = %L', :'seats', :'bob'),
    $$VALUES ('active', 'Epsilons', backend.now(), NULL::timestamptz, NULL::text)$$, 'who comes back has joined when they came back');

-- Whom a game that is called off surprises.
SELECT pg_temp.two(:'ann', :'bob', 'six') AS off \gset
SELECT is(pg_temp.bring(:'off', 'cancelled'), 'cancelled', 'an owner with a seat calls a game off');
SELECT results_eq(
    format($$SELECT user_id FROM backend.notifications WHERE kind = 'lobby.membership.removed' AND payload ->> 'game_id' = %L$$, :'off'),
    ARRAY[:'bob'::uuid], 'the other is told, and not who did it');

-- An engine that is gone is told nothing.
SELECT pg_temp.two(:'ann', :'bob', 'seven') AS stopped \gset
SELECT pg_temp.bring(:'stopped', 'running'), pg_temp.leave(:'stopped', :'bob') \g /dev/null
SELECT is((SELECT banish_wanted_at FROM backend.memberships WHERE game_id = :'stopped' AND user_id = :'bob'), backend.now(), 'a race is to be banished');
SELECT api.admin_game_force_stop('root', :'stopped') \g /dev/null
SELECT is((SELECT banish_wanted_at FROM backend.memberships WHERE game_id = :'stopped' AND user_id = :'bob'), NULL, 'until the game has ended');

-- The name that is held, whatever was held under its form and in whichever order the ids came.
SELECT pg_temp.name(:'ann', 'Zorg', 'pending_registration') AS let_go \gset
UPDATE backend.race_names SET tier = 'released', released_at = backend.now() WHERE race_name_id = :'let_go';
INSERT INTO backend.race_names (race_name_id, race_name, user_id) VALUES ('00000000-0000-7000-8000-000000000000', 'Zorg', :'ann');
UPDATE backend.race_names SET tier = 'pending_registration', expires_at = backend.now() + interval '1 day' WHERE user_id = :'ann' AND tier = 'reservation' AND race_name = 'Zorg';
SELECT is(api.race_name_register(:'ann', '{"race_name": "Zorg"}')::jsonb ->> 'status', 'registered', 'the name that is held is registered, not one that was let go');

-- Nobody runs a game who is blocked for good.
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'bob';
SELECT is(
    pg_temp.replied(format('SELECT api.admin_game_create(''root'', pg_temp.body(%L))', jsonb_build_object('owner_user_id', :'bob'))), 'GX422 eligibility_denied',
    'who is blocked for good is given no game to run');

SELECT * FROM finish();
ROLLBACK;
