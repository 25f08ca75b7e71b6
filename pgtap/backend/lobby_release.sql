-- Test galaxy-backend:backend/lobby_release

BEGIN;
SELECT plan(63);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
SELECT volatility_is('backend', 'lobby_release', 'volatile', 'lobby_release() is VOLATILE');
SELECT has_view('backend', 'invariants_lobby_release', 'what must never be seen is a view');
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.lobby_release(gen_random_uuid(), 'deleted')$$, '42501', NULL, 'backend_api releases nothing but through its door');
RESET ROLE;
SELECT throws_ok($$SELECT backend.lobby_release(gen_random_uuid(), 'bored')$$, '22023', NULL, 'there are two reasons');
SELECT throws_ok($$SELECT backend.lobby_release(gen_random_uuid(), NULL)$$, '22023', NULL, 'and none is none');
SELECT lives_ok($$SELECT backend.lobby_release(gen_random_uuid(), 'deleted')$$, 'who has nothing releases nothing');

-- Ann owns a game in every state, Bob sits in each of them; Cid owns one in every state in which Ann sits.
SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('eve') AS eve \gset
SELECT pg_temp.set_limit(u::uuid, l, 50) FROM unnest(ARRAY[:'ann', :'bob', :'cid']) AS u, unnest(ARRAY['max_owned_private_games', 'max_active_memberships']) AS l \g /dev/null
CREATE TEMPORARY TABLE made (owner text, state text, game_id uuid);
DO $$
DECLARE
    v_ann uuid := (SELECT user_id FROM backend.accounts WHERE email = 'ann@example.org');
    v_bob uuid := (SELECT user_id FROM backend.accounts WHERE email = 'bob@example.org');
    v_cid uuid := (SELECT user_id FROM backend.accounts WHERE email = 'cid@example.org');
    v_eve uuid := (SELECT user_id FROM backend.accounts WHERE email = 'eve@example.org');
    v_state text;
    v_game_id uuid;
BEGIN
    FOR v_state IN SELECT DISTINCT to_state FROM backend.state_transitions WHERE machine = 'game' ORDER BY 1 LOOP
        v_game_id := pg_temp.game(v_ann, '{"race_name": "Alphas"}');
        PERFORM pg_temp.join(v_game_id, v_bob, 'Betas');
        PERFORM pg_temp.bring(v_game_id, v_state);
        INSERT INTO made VALUES ('ann', v_state, v_game_id);
        v_game_id := pg_temp.game(v_cid, '{"race_name": "Gammas"}');
        PERFORM pg_temp.join(v_game_id, v_bob, 'Betas'), pg_temp.join(v_game_id, v_ann, 'Alphas of ' || replace(v_state, '_', ' '));
        PERFORM pg_temp.bring(v_game_id, v_state);
        IF v_state IN ('draft', 'enrollment_open') THEN
            PERFORM api.invite_create(v_cid, v_game_id, jsonb_build_object('invited_user_id', v_eve), NULL, NULL);
        END IF;
        INSERT INTO made VALUES ('cid', v_state, v_game_id);
    END LOOP;
    v_game_id := (SELECT game_id FROM made WHERE owner = 'ann' AND state = 'enrollment_open');
    PERFORM api.invite_create(v_ann, v_game_id, jsonb_build_object('invited_user_id', v_eve), NULL, NULL);
    PERFORM api.invite_create(v_ann, v_game_id, '{}', 'ABC', sha256('ABC'));
    v_game_id := (SELECT game_id FROM made WHERE owner = 'cid' AND state = 'enrollment_open');
    INSERT INTO backend.invites (game_id, inviter_user_id, invited_user_id, expires_at) VALUES (v_game_id, v_cid, v_ann, backend.now() + interval '1 day');
    PERFORM api.invite_create(v_cid, v_game_id, '{}', 'DEF', sha256('DEF'));
    PERFORM pg_temp.name(v_ann, 'Etas', 'registered'), pg_temp.name(v_ann, 'Zetas', 'pending_registration');
    v_game_id := pg_temp.public_game(v_cid, '{"game_name": "Public"}');
    PERFORM api.game_open_enrollment(v_cid, v_game_id);
    PERFORM api.application_create(v_ann, v_game_id, '{"race_name": "Alphas"}');
END;
$$;
DELETE FROM backend.notification_routes;
DELETE FROM backend.notifications;
CREATE FUNCTION pg_temp.after(p_reason text, p_ask text) RETURNS text LANGUAGE sql
RETURN pg_temp.undone(
    format('SELECT backend.lobby_release(%L, %L)', (SELECT user_id FROM backend.accounts WHERE user_name = 'ann'), p_reason), p_ask);
UPDATE backend.accounts SET user_name = 'ann' WHERE user_id = :'ann';

-- Games of theirs.
SELECT is(
    pg_temp.after(r, format('SELECT status || coalesce('' '' || status_reason, '''') FROM backend.games WHERE game_id = %L', game_id)),
    CASE WHEN state IN ('draft', 'enrollment_open', 'ready_to_start', 'start_failed') THEN 'cancelled owner_' || r
         WHEN state = 'paused' THEN 'paused by_owner' ELSE state END || CASE state WHEN 'x' THEN '' ELSE '' END,
    format('a game of somebody who is %s that was %s', r, state))
  FROM made, unnest(ARRAY['blocked', 'deleted']) AS r WHERE owner = 'ann' ORDER BY r, state;
SELECT is(
    pg_temp.after('blocked', format('SELECT actor_type || coalesce(actor_id, '''') FROM backend.game_history WHERE game_id = %L ORDER BY history_id DESC LIMIT 1', game_id)),
    'job', 'its history says that nobody in particular did it')
  FROM made WHERE owner = 'ann' AND state = 'draft';
SELECT is(
    pg_temp.after(r, $$SELECT string_agg(DISTINCT u.email || ' ' || n.kind || coalesce(' ' || (n.payload ->> 'reason'), ''), ', ')
                         FROM backend.notifications AS n JOIN backend.accounts AS u USING (user_id)$$),
    'bob@example.org diplomail.received, bob@example.org lobby.membership.removed game_cancelled, eve@example.org lobby.invite.revoked', 'who loses something is told, and nobody else')
  FROM unnest(ARRAY['blocked', 'deleted']) AS r;

-- Seats.
SELECT is(
    pg_temp.after(r, format('SELECT status FROM backend.memberships WHERE game_id = %L AND user_id = %L', game_id, :'ann')),
    CASE WHEN state IN ('finished', 'cancelled') THEN 'active'
         WHEN state IN ('starting', 'running', 'paused') AND r = 'blocked' THEN 'blocked'
         ELSE 'removed' END,
    format('the seat of somebody who is %s in a game that is %s', r, state))
  FROM made, unnest(ARRAY['blocked', 'deleted']) AS r WHERE owner = 'cid' ORDER BY r, state;
SELECT is(
    pg_temp.after('deleted', $$SELECT count(*) FROM backend.memberships WHERE status = 'active' AND user_id = (SELECT user_id FROM backend.accounts WHERE email = 'bob@example.org')$$),
    18::text, 'nobody else''s');
SELECT is(
    pg_temp.after('blocked', $$SELECT count(*) FROM backend.memberships AS m WHERE m.user_id = (SELECT user_id FROM backend.accounts WHERE user_name = 'ann')
                                  AND m.status <> 'active' AND m.ended_at = backend.now()$$),
    14::text, 'what ends is dated');

-- A game that has begun to start is started with the races that it was started with.
SELECT game_id AS starting FROM made WHERE owner = 'cid' AND state = 'starting' \gset
SELECT is(
    pg_temp.after('deleted', format($$SELECT cardinality(races) FROM worker.runtime_start_claim(%L, 60)$$, :'starting')), '3', 'an engine that is starting has all races');
SELECT is(
    pg_temp.after('deleted', format($$SELECT count(*) FROM backend.memberships AS m WHERE m.game_id = %L AND NOT backend.seat_is_played(m)$$,
        (SELECT game_id FROM made WHERE owner = 'cid' AND state = 'ready_to_start'))), '1', 'one that was not started has those who are left');

-- Invites.
SELECT is(
    pg_temp.after(r, $$SELECT string_agg(DISTINCT o.owner || ' ' || coalesce(u.email, 'code') || ' ' || i.status, ', ')
                         FROM backend.invites AS i JOIN made AS o USING (game_id) LEFT JOIN backend.accounts AS u ON u.user_id = i.invited_user_id
                        WHERE o.state IN ('draft', 'enrollment_open')$$),
    'ann code revoked, ann eve@example.org revoked, cid ann@example.org revoked, cid code created, cid eve@example.org created',
    'invites from and to somebody who is closed are revoked, others are not')
  FROM unnest(ARRAY['blocked', 'deleted']) AS r;

-- Applications, and races that engines are to banish.
SELECT is(pg_temp.after(r, 'SELECT status FROM backend.applications'), 'withdrawn', format('an application of somebody who is %s is withdrawn', r))
  FROM unnest(ARRAY['blocked', 'deleted']) AS r;
SELECT is(
    pg_temp.after(r, $$SELECT string_agg(o.owner || ' ' || o.state, ', ' ORDER BY o.owner, o.state) FROM backend.memberships AS m JOIN made AS o USING (game_id)
                        WHERE m.banish_wanted_at IS NOT NULL AND EXISTS (SELECT FROM procrastinate.procrastinate_jobs AS j
                              WHERE j.task_name = 'runtime_banish' AND j.args ->> 'game_id' = o.game_id::text)$$),
    'ann paused, ann running, ann starting, cid paused, cid running, cid starting', format('engines are to banish the races of somebody who is %s', r))
  FROM unnest(ARRAY['blocked', 'deleted']) AS r;

-- Race names.
SELECT is(
    pg_temp.after(r, $$SELECT coalesce(string_agg(race_name, ', '), 'none') FROM backend.race_names
                        WHERE tier <> 'released' AND user_id = (SELECT user_id FROM backend.accounts WHERE user_name = 'ann')$$),
    CASE r WHEN 'blocked' THEN 'Etas' ELSE 'none' END, format('what is left of the names of somebody who is %s', r))
  FROM unnest(ARRAY['blocked', 'deleted']) AS r;

-- Again, and with a sanction that keeps the owner from managing.
SELECT pg_temp.sanction(:'ann', 'private_game_manage_block') \g /dev/null
SELECT is(pg_temp.after('blocked', 'SELECT backend.lobby_release(user_id, ''deleted'')::text FROM backend.accounts WHERE user_name = ''ann'''), '', 'a second time takes what is left');
SELECT is(pg_temp.after(r, 'SELECT coalesce(string_agg(invariant, '', ''), ''none'') FROM backend.invariants'), 'none', 'nothing is wrong then')
  FROM unnest(ARRAY['blocked', 'deleted']) AS r;

-- Invariants.
SELECT is_empty('SELECT * FROM backend.invariants_lobby_release', 'nothing is wrong yet');
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'ann';
SELECT results_eq(
    'SELECT DISTINCT invariant COLLATE "C" FROM backend.invariants_lobby_release ORDER BY 1',
    $$VALUES ('game_that_its_owner_cannot_start' COLLATE "C"), ('open_application_of_a_closed_account'), ('open_invite_of_a_closed_account'), ('race_name_of_a_closed_account'), ('seat_of_a_closed_account')$$,
    'an account that was blocked by hand is listed with all that it holds');
SELECT is(
    (SELECT count(*) FROM backend.invariants_lobby_release AS v JOIN backend.race_names AS r ON r.race_name_id = v.object_id WHERE r.tier = 'registered'),
    0::bigint, 'but for the names that it has registered');

SELECT * FROM finish();
ROLLBACK;
