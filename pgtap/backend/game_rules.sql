-- Test galaxy-backend:backend/game_rules

BEGIN;
\ir ../helpers.psql
\ir ../games.psql

-- Every state, every action, every actor; the rules that are not of the machine are kept for later.
CREATE TEMPORARY VIEW matrix AS
SELECT s.state, a.action, w.actor, e.to_state,
       CASE WHEN w.actor = 'stranger' OR NOT EXISTS (
                SELECT FROM backend.state_transitions AS t WHERE t.machine = 'game' AND t.action = a.action AND w.actor = ANY (t.actors))
            THEN 'GX403 forbidden'
            WHEN e.to_state IS NULL THEN 'GX409 invalid_transition'
            ELSE e.to_state
       END AS expected
  FROM (SELECT DISTINCT to_state FROM backend.state_transitions WHERE machine = 'game') AS s(state)
 CROSS JOIN (SELECT DISTINCT action FROM backend.state_transitions WHERE machine = 'game') AS a
 CROSS JOIN (VALUES ('owner'), ('admin'), ('job'), ('sweeper'), ('stranger')) AS w(actor)
  LEFT JOIN backend.state_transitions AS e ON e.machine = 'game' AND e.action = a.action AND e.from_state = s.state AND w.actor = ANY (e.actors);

SELECT plan(172 + (SELECT count(*)::integer FROM matrix));

-- Attributes.
CREATE TEMPORARY TABLE functions (name text, volatility text);
INSERT INTO functions VALUES
    ('refuse', 'stable'), ('game_from_body', 'stable'), ('game_edit', 'volatile'), ('games_newest', 'stable'), ('edge_refusal', 'stable'), ('game_actions', 'stable'),
    ('game_history_page', 'stable'), ('game_command_by_admin', 'volatile'), ('memberships_page', 'stable'), ('membership_actor', 'stable'),
    ('membership_refusal', 'stable'), ('membership_end', 'volatile'), ('account_limit', 'stable'), ('account_lock', 'volatile'), ('sanction_refuse', 'stable'), ('game_member_count', 'stable'), ('game_json', 'stable'),
    ('game_insert', 'volatile'), ('game_is_visible', 'stable'), ('game_find', 'stable'), ('game_lock', 'volatile'), ('game_refusal', 'stable'),
    ('game_notify', 'volatile'), ('runtime_want', 'volatile'),
    ('runtime_unwant', 'volatile'), ('game_transition', 'volatile'), ('game_command', 'volatile'), ('membership_json', 'stable'), ('seat_take', 'volatile'), ('seat_is_played', 'stable');
SELECT volatility_is('backend', name, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT has_composite('backend', 'reason', 'a refusal has a reason');
SELECT has_view('backend', 'invariants_games', 'what must never be seen is a view');

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.game_command(gen_random_uuid(), 'cancel', gen_random_uuid())$$, '42501', NULL, 'backend_api acts through its door only');
SELECT throws_ok('SELECT FROM backend.invariants_games', '42501', NULL, 'and does not look behind it');
SET LOCAL ROLE backend_worker;
SELECT throws_ok($$SELECT backend.game_lock(gen_random_uuid())$$, '42501', NULL, 'backend_worker too');
RESET ROLE;

SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('eve') AS eve,
       gen_random_uuid() AS nobody \gset
-- Who takes part in all that follows.
SELECT pg_temp.set_limit(u::uuid, l, 50) FROM unnest(ARRAY[:'ann', :'bob', :'cid']) AS u, unnest(ARRAY['max_owned_private_games', 'max_active_memberships']) AS l \g /dev/null

-- The machine, all of it. A game of two, with an engine that is well, so that nothing but the machine refuses.
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas", "game_name": "Machine"}') AS game \gset
SELECT pg_temp.join(:'game', :'bob', 'Betas') \g /dev/null
SELECT pg_temp.bring(:'game', 'running') \g /dev/null
CREATE FUNCTION pg_temp.attempt(p_game_id uuid, p_owner uuid, p_stranger uuid, p_state text, p_action text, p_actor text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    v_type text := CASE WHEN p_actor IN ('owner', 'stranger') THEN 'user' ELSE p_actor END;
    v_id text := CASE p_actor WHEN 'owner' THEN p_owner::text WHEN 'stranger' THEN p_stranger::text ELSE 'x' END;
    v_game backend.games;
    v_reason backend.reason;
    v_said text;
    v_done text;
    v_history backend.game_history;
BEGIN
    PERFORM pg_temp.plant(format('UPDATE backend.games SET status = %L WHERE game_id = %L', p_state, p_game_id));
    SELECT * INTO v_game FROM backend.games WHERE game_id = p_game_id;
    v_reason := backend.game_refusal(v_game, p_action, v_type, v_id);
    v_said := CASE WHEN v_reason IS NULL THEN 'nothing' ELSE 'GX' || v_reason.status || ' ' || v_reason.code END;
    BEGIN
        -- The engine follows the game, so that it can be started from where it can be.
        PERFORM pg_temp.plant(format($p$UPDATE backend.runtime_records SET status = %L, wanted = 'running' WHERE game_id = %L$p$,
            CASE WHEN p_state IN ('enrollment_open', 'ready_to_start', 'start_failed') THEN 'stopped' ELSE 'running' END, p_game_id));
        v_done := (backend.game_transition(v_game, p_action, v_type, v_id, 'why')).status;
        SELECT * INTO v_history FROM backend.game_history WHERE game_id = p_game_id ORDER BY history_id DESC LIMIT 1;
        IF (v_history.action, v_history.from_status, v_history.to_status, v_history.actor_type, v_history.actor_id, v_history.reason)
            IS DISTINCT FROM (p_action, p_state, v_done, v_type, v_id, 'why') THEN
            v_done := 'not written down';
        ELSIF v_done IS DISTINCT FROM pg_temp.state(p_game_id) THEN
            v_done := 'not done';
        END IF;
        RAISE EXCEPTION 'undone' USING ERRCODE = 'ZZ000';
    EXCEPTION
        WHEN SQLSTATE 'ZZ000' THEN NULL;
        WHEN SQLSTATE 'GX403' OR SQLSTATE 'GX409' OR SQLSTATE 'GX422' OR no_data_found THEN v_done := SQLSTATE || ' ' || SQLERRM;
    END;
    RETURN CASE WHEN v_said = 'nothing' AND v_done !~ '^GX' THEN v_done WHEN v_said = v_done THEN v_said
                ELSE format('said %s and did %s', v_said, v_done) END;
END;
$$;
SELECT is(
    pg_temp.attempt(:'game', :'ann', :'eve', state, action, actor), expected,
    format('%s by %s of a game that is %s: %s', action, actor, state, expected))
  FROM matrix ORDER BY state, action, actor;
SELECT pg_temp.plant(format($$UPDATE backend.games SET status = 'running' WHERE game_id = %L$$, :'game')) \g /dev/null
SELECT results_eq(
    format($$SELECT (r).status, (r).code, (r).context FROM (SELECT backend.game_refusal(g, 'start', 'user', %L) AS r FROM backend.games AS g WHERE g.game_id = %L) AS t$$,
           :'ann', :'game'),
    $$VALUES (409, 'invalid_transition', '{"from": "running", "action": "start", "allowed": ["pause"]}'::jsonb)$$, 'a refused transition says from where, what, and what else this one could do');
SELECT is(
    (SELECT (backend.game_refusal(g, 'start', 'admin', 'root')).context -> 'allowed' FROM backend.games AS g WHERE g.game_id = :'game'),
    '["force-stop", "pause"]', 'which depends on who asks');
SELECT is(
    (SELECT (backend.game_refusal(g, a, 'user', :'ann')).code FROM backend.games AS g WHERE g.game_id = :'game'), 'forbidden', format('nobody may %s', coalesce(a, 'nothing')))
  FROM unnest(ARRAY['explode', '', NULL]) AS a;
SELECT is(
    (SELECT (backend.game_refusal(g, 'pause', t, i)).code FROM backend.games AS g WHERE g.game_id = :'game'), 'forbidden', d)
  FROM (VALUES ('user', NULL, 'a person who is nobody runs no game'), ('ghost', 'x', 'nor does a ghost'), (NULL, 'x', 'nor does nothing')) AS t(t, i, d);

-- The rules that come after the state.
SELECT pg_temp.game(:'ann', '{"game_name": "Rules"}') AS rules \gset
CREATE FUNCTION pg_temp.told(p_game_id uuid, p_action text, p_actor_type text, p_actor_id text) RETURNS text
LANGUAGE sql
RETURN (SELECT 'GX' || (r).status || ' ' || (r).code || coalesce(' ' || (r).context::text, '')
          FROM (SELECT backend.game_refusal(g, p_action, p_actor_type, p_actor_id) AS r FROM backend.games AS g WHERE g.game_id = p_game_id) AS t);
UPDATE backend.engine_versions SET enabled = false;
SELECT is(pg_temp.told(:'rules', 'open-enrollment', 'user', :'ann'), 'GX422 engine_version_unavailable {"version": "1.2.0"}', 'no enrolment is opened for an engine that is disabled');
UPDATE backend.engine_versions SET enabled = true;
SELECT pg_temp.advance('30 days') \g /dev/null
SELECT is(pg_temp.told(:'rules', 'open-enrollment', 'user', :'ann'), 'GX422 enrollment_ended', 'nor one that has ended, to the microsecond');
SELECT pg_temp.advance('-1 microsecond') \g /dev/null
SELECT is(pg_temp.told(:'rules', 'open-enrollment', 'user', :'ann'), NULL, 'nor before');
SELECT pg_temp.advance(interval '1 microsecond' - interval '30 days') \g /dev/null
SELECT pg_temp.bring(:'rules', 'enrollment_open') \g /dev/null
SELECT is(pg_temp.told(:'rules', a, t, i), 'GX422 not_enough_members {"members": 0, "min_players": 2}', format('%s by %s needs members', a, t))
  FROM (VALUES ('ready-to-start', 'user', :'ann'), ('ready-to-start', 'admin', 'root'), ('ready-to-start', 'sweeper', 'x'), ('force-start', 'admin', 'root')) AS t(a, t, i);
SELECT pg_temp.join(:'rules', :'ann', 'Alphas') \g /dev/null
SELECT is(pg_temp.told(:'rules', 'ready-to-start', 'user', :'ann'), 'GX422 not_enough_members {"members": 1, "min_players": 2}', 'one of two is not enough');
SELECT pg_temp.join(:'rules', :'bob', 'Betas') \g /dev/null
SELECT is(pg_temp.told(:'rules', 'ready-to-start', 'user', :'ann'), NULL, 'two are');
SELECT pg_temp.sanction(:'ann', 'private_game_manage_block', backend.now() + interval '1 day') \g /dev/null
SELECT is(pg_temp.told(:'rules', 'ready-to-start', 'user', :'ann'), 'GX403 sanctioned {"sanction": "private_game_manage_block"}', 'an owner under a block runs nothing');
SELECT is(pg_temp.told(:'rules', 'start', 'user', :'ann'), 'GX403 sanctioned {"sanction": "private_game_manage_block"}', 'which they are told before the state');
SELECT is(pg_temp.told(:'rules', 'force-start', 'user', :'ann'), 'GX403 forbidden', 'but after what is not theirs to do at all');
SELECT is(pg_temp.told(:'rules', 'ready-to-start', 'admin', 'root'), NULL, 'an administrator does');
SELECT pg_temp.advance('1 day') \g /dev/null
SELECT is(pg_temp.told(:'rules', 'ready-to-start', 'user', :'ann'), NULL, 'a block that is over has no effect');
SELECT pg_temp.advance('-1 day') \g /dev/null
DELETE FROM backend.sanction_active;
UPDATE backend.engine_versions SET enabled = false;
SELECT is(pg_temp.told(:'rules', 'force-start', 'admin', 'root'), 'GX422 engine_version_unavailable {"version": "1.2.0"}', 'not even an administrator starts what is disabled');
SELECT is(pg_temp.told(:'rules', 'ready-to-start', 'user', :'ann'), NULL, 'but enrolment can be closed');
SELECT is(pg_temp.told(:'rules', 'cancel', 'user', :'ann'), NULL, 'and the game cancelled');
UPDATE backend.engine_versions SET enabled = true;
SELECT api.game_ready_to_start(:'ann', :'rules') \g /dev/null
UPDATE backend.engine_versions SET enabled = false;
SELECT is(pg_temp.told(:'rules', 'start', 'user', :'ann'), 'GX422 engine_version_unavailable {"version": "1.2.0"}', 'nothing is started with it');
UPDATE backend.engine_versions SET enabled = true;
SELECT api.game_start(:'ann', :'rules') \g /dev/null
SELECT is(pg_temp.started(:'rules'), true, 'a game starts');
SELECT api.game_pause(:'ann', :'rules') \g /dev/null
SELECT is(pg_temp.told(:'rules', 'resume', 'user', :'ann'), NULL, 'a paused game whose engine is well goes on');
UPDATE backend.runtime_records SET status = 'engine_unreachable' WHERE game_id = :'rules';
SELECT is(pg_temp.told(:'rules', 'resume', 'user', :'ann'), 'GX422 engine_not_healthy', 'one whose engine does not answer does not');
UPDATE backend.runtime_records SET status = 'running', wanted = 'removed' WHERE game_id = :'rules';
SELECT is(pg_temp.told(:'rules', 'resume', 'admin', 'root'), 'GX422 engine_not_healthy', 'nor one whose engine is not wanted');
UPDATE backend.runtime_records SET wanted = 'running' WHERE game_id = :'rules';

-- What follows from a transition: enrolment closes.
SELECT pg_temp.game(:'ann', '{"game_name": "Closing"}') AS closing \gset
SELECT pg_temp.bring(:'closing', 'enrollment_open') \g /dev/null
SELECT pg_temp.join(:'closing', :'ann', 'Alphas'), pg_temp.join(:'closing', :'bob', 'Betas') \g /dev/null
SELECT api.invite_create(:'ann', :'closing', jsonb_build_object('invited_user_id', :'eve'), NULL, NULL) \g /dev/null
SELECT api.invite_create(:'ann', :'closing', '{}', 'code', sha256('code')) \g /dev/null
DELETE FROM backend.push_pending;
SELECT api.game_ready_to_start(:'ann', :'closing') \g /dev/null
SELECT is((SELECT array_agg(DISTINCT status) FROM backend.invites WHERE game_id = :'closing'), ARRAY['revoked'], 'open invites are taken back when enrolment closes');
SELECT results_eq(
    'SELECT user_id, kind, payload FROM backend.push_pending',
    format($$VALUES (%L::uuid, 'lobby.invite.revoked', jsonb_build_object('game_id', %L::uuid))$$, :'eve', :'closing'), 'and who was invited is told');
SELECT pg_temp.game(:'ann', '{"game_name": "Drafted"}') AS drafted \gset
SELECT api.invite_create(:'ann', :'drafted', jsonb_build_object('invited_user_id', :'eve'), NULL, NULL) \g /dev/null
SELECT api.game_cancel(:'ann', :'drafted') \g /dev/null
SELECT is((SELECT status FROM backend.invites WHERE game_id = :'drafted'), 'revoked', 'a draft that is cancelled takes its invites back too');
SELECT is_empty('SELECT * FROM backend.invariants_invites', 'no invite to a game that is closed stays open');
SELECT pg_temp.plant('DELETE FROM backend.invites WHERE status = ''created''') \g /dev/null

-- It starts, fails, and is tried again.
SELECT api.game_start(:'ann', :'closing') \g /dev/null
SELECT results_eq(
    format('SELECT wanted, status, generation, engine_version, image_ref, lease_until FROM pg_temp.runtime(%L)', :'closing'),
    $$VALUES ('running', 'starting', 1, '1.2.0', 'galaxy/engine:1.2.0', NULL::timestamptz)$$, 'a game that starts wants an engine');
SELECT results_eq(
    format($$SELECT queue_name::text, lock, priority FROM procrastinate.procrastinate_jobs WHERE task_name = 'runtime_start' AND args ->> 'game_id' = %L$$, :'closing'),
    format($$VALUES ('runtime', 'game:%s', 0)$$, :'closing'), 'which a job starts, one for a game at a time');
SELECT lease_number AS lease FROM worker.runtime_start_claim(:'closing', 60) \gset
SELECT worker.runtime_start_failed(:'closing', :lease, 'container_start_failed', 'x') \g /dev/null
SELECT results_eq(
    format('SELECT status, status_reason FROM backend.games WHERE game_id = %L', :'closing'), $$VALUES ('start_failed', 'container_start_failed')$$, 'a game that failed says why');
UPDATE backend.engine_versions SET image_ref = 'galaxy/engine:mended';
SELECT is(api.game_retry_start(:'ann', :'closing')::jsonb ->> 'status_reason', NULL, 'which is forgotten when it is tried again');
SELECT results_eq(
    format('SELECT wanted, status, generation, image_ref FROM pg_temp.runtime(%L)', :'closing'),
    $$VALUES ('running', 'starting', 2, 'galaxy/engine:mended')$$, 'with another engine, of the image as it is now');
SELECT pg_temp.started(:'closing') \g /dev/null
SELECT results_eq(
    format('SELECT status, started_at, finished_at FROM backend.games WHERE game_id = %L', :'closing'),
    $$VALUES ('running', backend.now(), NULL::timestamptz)$$, 'a game that runs says since when');
SELECT set_eq(
    $$SELECT user_id, count(*) FROM backend.notifications WHERE kind = 'game.started' GROUP BY user_id$$,
    format('VALUES (%L::uuid, 3::bigint), (%L, 3)', :'ann', :'bob'), 'and every member is told');

-- It pauses.
DELETE FROM backend.push_pending;
SELECT pg_temp.advance('1 second') \g /dev/null
SELECT api.game_pause(:'ann', :'closing') \g /dev/null
SELECT set_eq(
    $$SELECT user_id, kind, payload, request_id FROM backend.push_pending WHERE kind <> 'diplomail.received'$$,
    format($$SELECT u::uuid AS u, 'game.paused' AS k, jsonb_build_object('game_id', %1$L::uuid, 'turn', 0, 'reason', 'by_owner') AS p, 'paused:%1$s:0' AS r
               FROM unnest(ARRAY[%2$L, %3$L]) AS u$$,
           :'closing', :'ann', :'bob'), 'every member is told that a game is paused, and why');
SELECT is((SELECT status_reason FROM backend.games WHERE game_id = :'closing'), 'by_owner', 'and the game says so');
UPDATE backend.runtime_records SET next_turn_at = backend.now() - interval '10 hours' WHERE game_id = :'closing';
SELECT is(api.game_resume(:'ann', :'closing')::jsonb ->> 'status_reason', NULL, 'until it goes on');
SELECT is(
    (pg_temp.runtime(:'closing')).next_turn_at, backend.cron_next('0 * * * *', backend.now()),
    'it goes on at the next moment of its schedule, not with one that it was paused at');

-- It is cancelled by force: its engine goes.
SELECT is(
    (SELECT (backend.game_transition(g, 'force-stop', 'admin', 'root', 'enough')).status FROM backend.game_lock(:'closing') AS g), 'cancelled', 'an administrator stops a game');
SELECT results_eq(
    format('SELECT wanted, status, next_turn_at, turn_requested_at FROM pg_temp.runtime(%L)', :'closing'),
    $$VALUES ('removed', 'running', NULL::timestamptz, NULL::timestamptz)$$, 'its engine is not wanted any more');
SELECT results_eq(
    format($$SELECT lock, priority FROM procrastinate.procrastinate_jobs WHERE task_name = 'runtime_remove' AND args ->> 'game_id' = %L$$, :'closing'),
    format($$VALUES ('game:%s', 10)$$, :'closing'), 'and is removed before anything else is done for the game');
SELECT is((SELECT finished_at FROM backend.games WHERE game_id = :'closing'), backend.now(), 'the game says when it ended');
SELECT results_eq(
    format('SELECT action, from_status, to_status, actor_type, actor_id, reason FROM backend.game_history WHERE game_id = %L ORDER BY history_id', :'closing'),
    format($$VALUES ('create', NULL, 'draft', 'user', %1$L, NULL), ('open-enrollment', 'draft', 'enrollment_open', 'user', %1$L, NULL),
                    ('ready-to-start', 'enrollment_open', 'ready_to_start', 'user', %1$L, NULL), ('start', 'ready_to_start', 'starting', 'user', %1$L, NULL),
                    ('runtime-failed', 'starting', 'start_failed', 'job', '1', 'container_start_failed'), ('retry-start', 'start_failed', 'starting', 'user', %1$L, NULL),
                    ('runtime-started', 'starting', 'running', 'job', '2', NULL), ('pause', 'running', 'paused', 'user', %1$L, 'by_owner'),
                    ('resume', 'paused', 'running', 'user', %1$L, NULL), ('force-stop', 'running', 'cancelled', 'admin', 'root', 'enough')$$, :'ann'),
    'its history is all of this');

-- Names at the end of a game.
SELECT pg_temp.plant('TRUNCATE backend.memberships, backend.race_names') \g /dev/null
CREATE FUNCTION pg_temp.names() RETURNS TABLE (race_name text, tier text, is_held boolean)
LANGUAGE sql
BEGIN ATOMIC
    SELECT r.race_name, r.tier, r.tier <> 'released' FROM backend.race_names AS r;
END;
CREATE FUNCTION pg_temp.played(p_owner uuid, p_name text, p_other uuid, p_other_name text) RETURNS uuid
LANGUAGE plpgsql
AS $$
DECLARE
    v_game_id uuid := (SELECT (pg_temp.insert_game(pg_temp.body('{"game_name": "Played"}'), 'private', p_owner)).game_id);
BEGIN
    PERFORM pg_temp.join(v_game_id, p_owner, p_name), pg_temp.join(v_game_id, p_other, p_other_name);
    PERFORM pg_temp.bring(v_game_id, 'running');
    RETURN v_game_id;
END;
$$;
CREATE FUNCTION pg_temp.over(p_game_id uuid) RETURNS text
LANGUAGE sql
RETURN (SELECT (backend.game_transition(g, 'finish', 'job', '1')).status FROM backend.game_lock(p_game_id) AS g);
SELECT pg_temp.played(:'ann', 'Alphas', :'bob', 'Betas') AS one, pg_temp.played(:'ann', 'alphas', :'cid', 'Gammas') AS two \gset
SELECT set_eq(
    'SELECT * FROM pg_temp.names()', $$VALUES ('Alphas', 'reservation', true), ('Betas', 'reservation', true), ('Gammas', 'reservation', true)$$,
    'a name in two games of its holder is held once');
SELECT throws_ok(format($$SELECT pg_temp.played(%L, 'ALPHAS', %L, 'Deltas')$$, :'bob', :'cid'), 'GX422', 'name_taken', 'nobody else plays under it');
UPDATE backend.memberships SET max_planets = 2, max_population = 200 WHERE game_id = :'one' AND race_name = 'Betas';
UPDATE backend.memberships SET max_planets = 2 WHERE game_id = :'one' AND race_name = 'Alphas';
SELECT is(pg_temp.over(:'one'), 'finished', 'a game ends');
SELECT set_eq(
    'SELECT * FROM pg_temp.names()', $$VALUES ('Alphas', 'reservation', true), ('Betas', 'pending_registration', true), ('Gammas', 'reservation', true)$$,
    'a race that grew in planets and population has earned its name; one that is in use elsewhere is held on');
SELECT results_eq(
    $$SELECT user_id, idempotency_key, payload FROM backend.notifications WHERE kind = 'lobby.race_name.pending'$$,
    format($$VALUES (%1$L::uuid, '%2$s:%3$s', jsonb_build_object('race_name', 'Betas', 'expires_at', backend.ts(backend.now() + interval '30 days')))$$, :'bob', :'one',
           (SELECT race_name_id FROM backend.race_names WHERE race_name = 'Betas')),
    'its holder is told, and until when');
SELECT is((SELECT expires_at FROM backend.race_names WHERE race_name = 'Betas'), backend.now() + interval '30 days', 'which is thirty days');
SELECT set_eq($$SELECT user_id FROM backend.notifications WHERE kind = 'game.finished'$$, format('VALUES (%L::uuid), (%L)', :'ann', :'bob'), 'every member is told that the game is over');
UPDATE backend.memberships SET max_planets = 2 WHERE game_id = :'two' AND race_name = 'alphas';
UPDATE backend.memberships SET max_population = 200 WHERE game_id = :'two' AND race_name = 'Gammas';
SELECT pg_temp.over(:'two') \g /dev/null
SELECT set_eq(
    'SELECT * FROM pg_temp.names()', $$VALUES ('Alphas', 'released', false), ('Betas', 'pending_registration', true), ('Gammas', 'released', false)$$,
    'a name is let go with its holder''s last game; growth in planets alone, or in population alone, earns none');
SELECT pg_temp.played(:'ann', 'Alphas', :'bob', 'Betas') AS three \gset
SELECT pg_temp.over(:'three') \g /dev/null
SELECT set_eq(
    'SELECT * FROM pg_temp.names()', $$VALUES ('Alphas', 'released', false), ('Betas', 'pending_registration', true), ('Gammas', 'released', false)$$,
    'what was earned once is not lost by a game without growth');
SELECT pg_temp.played(:'ann', 'Alphas', :'bob', 'Betas') AS four \gset
UPDATE backend.memberships SET max_planets = 9, max_population = 900 WHERE game_id = :'four';
SELECT (backend.game_transition(g, 'force-stop', 'admin', 'root')).status FROM backend.game_lock(:'four') AS g \g /dev/null
SELECT is((SELECT count(*) FROM backend.race_names WHERE race_name = 'Alphas' AND tier <> 'released'), 0::bigint, 'who grew in a game that was cancelled has earned nothing');
SET LOCAL backend.pending_registration_ttl = '60';
SELECT pg_temp.played(:'ann', 'Alphas', :'cid', 'Gammas') AS five \gset
UPDATE backend.memberships SET max_planets = 9, max_population = 900, status = 'blocked', ended_at = backend.now() WHERE game_id = :'five' AND race_name = 'Gammas';
UPDATE backend.memberships SET max_planets = 9, max_population = 900 WHERE game_id = :'five' AND race_name = 'Alphas';
SELECT backend.race_name_release_unused(:'cid', backend.race_name_canonical('Gammas')) \g /dev/null
SELECT is((SELECT count(*) FROM backend.race_names WHERE race_name = 'Gammas' AND tier <> 'released'), 0::bigint, 'a seat that is taken away holds no name');
SELECT pg_temp.over(:'five') \g /dev/null
SELECT is(
    (SELECT expires_at FROM backend.race_names WHERE race_name = 'Alphas' AND tier <> 'released'), backend.now() + interval '60 seconds', 'how long is a setting');
SELECT is((SELECT count(*) FROM backend.race_names WHERE race_name = 'Gammas' AND tier <> 'released'), 0::bigint, 'and earns none');
RESET backend.pending_registration_ttl;
SELECT is_empty('SELECT * FROM backend.invariants_games', 'nothing is wrong after all this');

-- Limits.
SELECT is(backend.account_limit(:'eve', c), v, format('%s of the free tier', c))
  FROM (VALUES ('max_owned_private_games', 1), ('max_active_memberships', 3), ('max_pending_applications', 3), ('max_registered_race_names', 1)) AS t(c, v);
SELECT pg_temp.grant_tier(:'eve', 'monthly', backend.now() + interval '1 day') \g /dev/null
SELECT is(backend.account_limit(:'eve', 'max_active_memberships'), 10, 'of another tier');
SELECT pg_temp.set_limit(:'eve', 'max_active_memberships', 0, backend.now() + interval '2 hours') \g /dev/null
SELECT is(backend.account_limit(:'eve', 'max_active_memberships'), 0, 'a person''s own goes before it, also when it is nothing');
SELECT pg_temp.advance('2 hours') \g /dev/null
SELECT is(backend.account_limit(:'eve', 'max_active_memberships'), 10, 'until it is over');
SELECT pg_temp.advance('22 hours') \g /dev/null
SELECT is(backend.account_limit(:'eve', 'max_active_memberships'), 3, 'a tier that is over counts as free');
SELECT pg_temp.advance('-1 day') \g /dev/null
SELECT is(backend.account_limit(:'nobody', 'max_active_memberships'), 3, 'nobody is as free as anybody');

DELETE FROM backend.limit_active WHERE user_id = :'eve';

-- Sanctions.
SELECT lives_ok(format('SELECT backend.sanction_refuse(%L, ''game_join_block'')', :'eve'), 'nobody is refused for nothing');
SELECT pg_temp.sanction(:'eve', 'game_join_block') \g /dev/null
SELECT is(
    pg_temp.refused(format('SELECT backend.sanction_refuse(%L, ''game_join_block'')', :'eve')) - 'detail',
    '{"sqlstate": "GX403", "message": "sanctioned", "hint": "{\"sanction\": \"game_join_block\"}"}', 'a refusal says which sanction');
SELECT lives_ok(format('SELECT backend.sanction_refuse(%L, ''private_game_create_block'')', :'eve'), 'another sanction is another');
DELETE FROM backend.sanction_active;

-- Seats.
SELECT pg_temp.game(:'ann', '{"game_name": "Seats", "max_players": 2}') AS seats \gset
SELECT lives_ok(format('SELECT pg_temp.join(%L, %L, ''Epsilons'')', :'seats', :'bob'), 'a seat is taken');
SELECT throws_ok(format('SELECT pg_temp.join(%L, %L, ''Zetas'')', :'seats', :'bob'), 'GX409', 'already_member', 'a person has one');
SELECT throws_ok(format('SELECT pg_temp.join(%L, %L, ''Epsilons'')', :'seats', :'eve'), 'GX422', 'name_taken', 'a race has one');
SELECT throws_ok(format('SELECT pg_temp.join(%L, %L, ''x'')', :'seats', :'eve'), 'GX422', 'invalid_name', 'and a name');
SELECT throws_ok(format('SELECT pg_temp.join(%L, %L, NULL)', :'seats', :'eve'), 'GX422', 'invalid_name', 'that is one');
SELECT pg_temp.sanction(:'eve', 'game_join_block') \g /dev/null
SELECT throws_ok(format('SELECT pg_temp.join(%L, %L, ''Zetas'')', :'seats', :'eve'), 'GX403', 'sanctioned', 'somebody under a block takes none');
DELETE FROM backend.sanction_active;
UPDATE backend.limit_active SET value = 0 WHERE user_id = :'cid' AND code = 'max_active_memberships';
SELECT is(
    pg_temp.refused(format('SELECT pg_temp.join(%L, %L, ''Zetas'')', :'seats', :'cid')) ->> 'hint', '{"limit": "max_active_memberships", "value": 0}',
    'who has as many as they may takes none, and is told how many');
SELECT throws_ok(format('SELECT pg_temp.join(%L, %L, ''Zetas'')', :'seats', :'cid'), 'GX422', 'limit_reached', 'by its code');
UPDATE backend.limit_active SET value = 50 WHERE user_id = :'cid';
SELECT lives_ok(format('SELECT pg_temp.join(%L, %L, ''Zetas'')', :'seats', :'cid'), 'the last seat is taken');
SELECT throws_ok(format('SELECT pg_temp.join(%L, %L, ''Etas'')', :'seats', :'eve'), 'GX422', 'game_full', 'then the game is full');
SELECT is(backend.game_member_count(:'seats'), 2::bigint, 'with two members');
UPDATE backend.memberships SET status = 'removed', ended_at = backend.now() WHERE game_id = :'seats' AND user_id = :'cid';
SELECT backend.race_name_release_unused(:'cid', backend.race_name_canonical('Zetas')) \g /dev/null
SELECT is(backend.game_member_count(:'seats'), 1::bigint, 'somebody who is gone is none');
SELECT lives_ok(format('SELECT pg_temp.join(%L, %L, ''Etas'')', :'seats', :'cid'), 'they may come back, under another name');
SELECT results_eq(
    format('SELECT race_name, race_name_canonical, status, ended_at FROM backend.memberships WHERE game_id = %L AND user_id = %L', :'seats', :'cid'),
    $$VALUES ('Etas', 'etas', 'active', NULL::timestamptz)$$, 'to the seat that they had');
UPDATE backend.memberships SET status = 'blocked', ended_at = backend.now() WHERE game_id = :'seats' AND user_id = :'cid';
SELECT backend.race_name_release_unused(:'cid', 'etas') \g /dev/null
SELECT throws_ok(format('SELECT pg_temp.join(%L, %L, ''Etas'')', :'seats', :'cid'), 'GX422', 'eligibility_denied', 'who is blocked does not come back');
SELECT is(
    (SELECT backend.membership_json(m) FROM backend.memberships AS m WHERE game_id = :'seats' AND user_id = :'bob') - 'membership_id',
    jsonb_build_object('game_id', :'seats', 'user_id', :'bob', 'race_name', 'Epsilons', 'status', 'active', 'joined_at', backend.ts(backend.now()),
                       'ended_at', NULL, 'planets', NULL, 'population', NULL), 'a seat is shown as the contract says');

-- Who sees a private game.
SELECT pg_temp.game(:'ann', '{"game_name": "Hidden"}') AS hidden \gset
SELECT pg_temp.join(:'hidden', :'bob', 'Epsilons') \g /dev/null
SELECT (api.invite_create(:'ann', :'hidden', jsonb_build_object('invited_user_id', :'cid'), NULL, NULL)).body::jsonb ->> 'invite_id' AS invite \gset
CREATE FUNCTION pg_temp.sees(p_user_id uuid, p_game_id uuid) RETURNS boolean
LANGUAGE sql
RETURN (SELECT backend.game_is_visible(g, p_user_id) FROM backend.games AS g WHERE g.game_id = p_game_id);
SELECT is(pg_temp.sees(u::uuid, :'hidden'), s, d)
  FROM (VALUES (:'ann', true, 'its owner sees a private game'), (:'bob', true, 'a member too'), (:'cid', true, 'and who is invited'),
               (:'eve', false, 'nobody else'), (:'nobody', false, 'and nobody at all')) AS t(u, s, d);
SELECT throws_ok(format('SELECT backend.game_find(%L, %L)', :'hidden', :'eve'), 'GX404', 'game_not_found', 'for others it is not there');
SELECT throws_ok(format('SELECT backend.game_find(%L, %L)', :'nobody', :'ann'), 'GX404', 'game_not_found', 'as one that is not there');
SELECT is((backend.game_find(:'hidden', :'cid')).game_id, :'hidden', 'who sees it finds it');
SELECT pg_temp.advance('7 days') \g /dev/null
SELECT is(pg_temp.sees(:'cid', :'hidden'), false, 'an invite that is over shows nothing');
SELECT pg_temp.advance('-7 days') \g /dev/null
UPDATE backend.invites SET status = 'declined' WHERE invite_id = :'invite';
SELECT is(pg_temp.sees(:'cid', :'hidden'), false, 'nor one that was declined');
UPDATE backend.memberships SET status = 'removed', ended_at = backend.now() WHERE game_id = :'hidden';
SELECT is(pg_temp.sees(:'bob', :'hidden'), false, 'nor a seat that was given up');
SELECT pg_temp.plant(format('UPDATE backend.games SET visibility = ''public'', owner_user_id = NULL WHERE game_id = %L', :'hidden')) \g /dev/null
SELECT is(pg_temp.sees(:'eve', :'hidden'), true, 'everybody sees a public one');
SELECT is(pg_temp.told(:'hidden', 'cancel', 'user', :'ann'), 'GX403 forbidden', 'which is nobody''s');
SELECT is(pg_temp.told(:'hidden', 'cancel', 'admin', 'root'), NULL, 'but the administration''s');
SELECT is((backend.game_lock(:'nobody')).game_id, NULL, 'a game that is not there cannot be held');

-- A command of a person.
SELECT throws_ok(format('SELECT backend.game_command(%L, ''cancel'', %L)', :'seats', u), 'GX' || s, c, d)
  FROM (VALUES (:'nobody', '404', 'account_not_found', 'a command is somebody''s'), (:'eve', '404', 'game_not_found', 'who sees the game'),
               (:'bob', '403', 'forbidden', 'and runs it')) AS t(u, s, c, d);
SELECT throws_ok(format('SELECT backend.game_command(%L, ''cancel'', %L)', :'nobody', :'ann'), 'GX404', 'game_not_found', 'a game that is not there obeys nobody');
SELECT is(backend.game_command(:'seats', 'cancel', :'ann')::jsonb ->> 'status', 'cancelled', 'one that is does, and is shown');

-- A new game.
CREATE FUNCTION pg_temp.problems(p_more jsonb) RETURNS text
LANGUAGE sql
RETURN (SELECT r ->> 'sqlstate' || ' ' || (r ->> 'message') || ' ' || (SELECT string_agg((p ->> 'path') || ' ' || (p ->> 'problem'), ', ' ORDER BY n)
                                                                        FROM jsonb_array_elements((r ->> 'hint')::jsonb) WITH ORDINALITY AS t(p, n))
          FROM pg_temp.refused(format('SELECT pg_temp.insert_game(%L, ''public'', NULL)', pg_temp.body(p_more))) AS r);
SELECT is(pg_temp.problems(m::jsonb), 'GX400 invalid_request ' || e, d)
  FROM (VALUES
    ('{"game_name": "  "}', 'game_name is too long, or has nothing to be seen', 'a name is something'),
    (jsonb_build_object('game_name', repeat(U&'\0958', 64))::text, 'game_name is too long, or has nothing to be seen', 'a name is not too long as it is kept'),
    ('{"min_players": 5}', 'min_players is above max_players', 'no more are needed than there are seats'),
    ('{"enrollment_ends_at": "2020-01-01T00:00:00Z"}', 'enrollment_ends_at is not in the future', 'enrolment ends later'),
    ('{"turn_schedule": "often"}', 'turn_schedule is not a schedule of five fields that ever comes', 'a schedule is one'),
    ('{"turn_schedule": "0 0 30 2 *"}', 'turn_schedule is not a schedule of five fields that ever comes', 'that comes'),
    ('{"target_engine_version": "9.9.9"}', 'target_engine_version is not an enabled engine version', 'an engine version is there'),
    ('{"game_name": "", "min_players": 9, "turn_schedule": ""}',
        'game_name is too long, or has nothing to be seen, min_players is above max_players, turn_schedule is not a schedule of five fields that ever comes', 'all that is wrong is told at once')
  ) AS t(m, e, d);
SELECT is(pg_temp.problems(jsonb_build_object('enrollment_ends_at', backend.ts(backend.now()))), 'GX400 invalid_request enrollment_ends_at is not in the future', 'now is not later');
UPDATE backend.engine_versions SET enabled = false;
SELECT is(pg_temp.problems('{"target_engine_version": "1.2.0"}'), 'GX400 invalid_request target_engine_version is not an enabled engine version', 'a version that is disabled is none');
SELECT throws_ok(format('SELECT pg_temp.insert_game(%L, ''public'', NULL)', pg_temp.body()), 'GX422', 'engine_version_unavailable', 'where none is enabled there is no game');
UPDATE backend.engine_versions SET enabled = true;
INSERT INTO backend.engine_versions (version, image_ref) VALUES ('1.10.0', 'galaxy/engine:1.10.0');
SELECT (pg_temp.insert_game(pg_temp.body('{"game_name": "  Friday night ", "description": "d", "turn_schedule": " 0 20 * * fri "}'), 'public', NULL)).game_id AS public \gset
SELECT is(
    (SELECT backend.game_json(g) FROM backend.games AS g WHERE g.game_id = :'public'),
    jsonb_build_object(
        'game_id', :'public', 'game_name', 'Friday night', 'description', 'd', 'visibility', 'public', 'status', 'draft', 'status_reason', NULL,
        'owner_user_id', NULL, 'min_players', 2, 'max_players', 4, 'member_count', 0, 'enrollment_ends_at', backend.ts(backend.now() + interval '30 days'),
        'turn_schedule', '0 20 * * fri', 'target_engine_version', '1.10.0', 'current_turn', NULL, 'next_turn_at', NULL, 'runtime_status', NULL,
        'created_at', backend.ts(backend.now()), 'started_at', NULL, 'finished_at', NULL),
    'a game is kept trimmed, with the newest engine, and shown as the contract says');
SELECT is(
    (pg_temp.insert_game(pg_temp.body('{"target_engine_version": "1.2.0"}'), 'public', NULL)).target_engine_version, '1.2.0', 'or with the one that was named');
SELECT results_eq(
    format($$SELECT j ->> 'member_count', j ->> 'current_turn', j ->> 'next_turn_at', j ->> 'runtime_status', j ->> 'started_at'
               FROM (SELECT backend.game_json(g) AS j FROM backend.games AS g WHERE g.game_id = %L) AS t$$, :'rules'),
    format($$SELECT '0', '0', backend.ts(r.next_turn_at), 'running', backend.ts(g.started_at) FROM backend.games AS g JOIN backend.runtime_records AS r USING (game_id) WHERE game_id = %L$$, :'rules'),
    'a game that runs is shown with its engine');

-- Invariants.
DELETE FROM backend.games AS g WHERE NOT EXISTS (SELECT FROM backend.game_history AS h WHERE h.game_id = g.game_id);
SELECT pg_temp.plant('UPDATE backend.games SET visibility = ''private'', owner_user_id = ' || quote_literal(:'ann') || ' WHERE visibility = ''public''') \g /dev/null
SELECT is_empty('SELECT * FROM backend.invariants_games', 'nothing is wrong yet');
SELECT pg_temp.played(:'ann', 'Thetas', :'bob', 'Iotas') AS broken \gset
UPDATE backend.games SET max_players = 2 WHERE game_id = :'broken';
CREATE FUNCTION pg_temp.planted(p_sql text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    v_found text;
BEGIN
    PERFORM pg_temp.plant(p_sql);
    SELECT string_agg(invariant || ' ' || object_id, ', ' ORDER BY invariant) INTO v_found FROM backend.invariants;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = coalesce(v_found, 'nothing');
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    RETURN SQLERRM;
END;
$$;
SELECT is(pg_temp.planted(replace(replace(v, ':game', quote_literal(:'broken')), ':eve', quote_literal(:'eve'))), c || ' ' || :'broken', d)
  FROM (VALUES
    ('WITH n AS (INSERT INTO backend.race_names (canonical, data_version, race_name, user_id)
                 SELECT ''kappas'', data_version, ''Kappas'', :eve FROM backend.unicode_version)
      INSERT INTO backend.memberships (game_id, user_id, race_name, race_name_canonical) VALUES (:game, :eve, ''Kappas'', ''kappas'')', 'more_members_than_seats', 'a game with more members than seats is listed'),
    ('DELETE FROM backend.runtime_records WHERE game_id = :game', 'running_game_without_a_runtime', 'a running game without an engine'),
    ('UPDATE backend.runtime_records SET wanted = ''stopped'' WHERE game_id = :game', 'running_game_without_a_runtime', 'or with one that is not wanted'),
    ('DELETE FROM backend.player_mappings WHERE game_id = :game', 'started_game_below_its_minimum_at_start', 'a running game without players'),
    ('INSERT INTO backend.game_turns (game_id, turn, players, lease_number) VALUES (:game, 7, ''[]'', 1)', 'turn_without_its_predecessor', 'a turn that its engine has not come to'),
    ('UPDATE backend.games SET status = ''paused'' WHERE game_id = :game', 'game_status_and_history_disagree', 'a state that no history leads to'),
    ('DELETE FROM backend.game_history WHERE game_id = :game', 'game_status_and_history_disagree', 'or that has none')
  ) AS t(v, c, d);
SELECT (SELECT race_name_id FROM backend.race_names WHERE race_name = 'Thetas') AS thetas,
       (SELECT membership_id FROM backend.memberships WHERE race_name = 'Iotas') AS iotas \gset
SELECT is(
    pg_temp.planted(format('UPDATE backend.memberships SET status = ''removed'', ended_at = now() WHERE race_name = ''Thetas''')),
    'reservation_without_a_game' || ' ' || :'thetas', 'a name that is held for no game is listed');
SELECT is(
    pg_temp.planted('UPDATE backend.race_names SET tier = ''released'', released_at = now() WHERE race_name = ''Iotas'''),
    'seat_under_a_name_that_is_not_held' || ' ' || :'iotas', 'and a seat under a name that is not held');
SELECT is(pg_temp.planted('SELECT 1'), 'nothing', 'where nothing is planted nothing is listed');

SELECT * FROM finish();
ROLLBACK;
