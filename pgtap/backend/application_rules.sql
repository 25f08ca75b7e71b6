-- Test galaxy-backend:backend/application_rules

BEGIN;
\ir ../helpers.psql
\ir ../games.psql

-- Every state, every action, every actor of the machines of applications, seats and invites.
CREATE TEMPORARY VIEW matrix AS
SELECT a.machine, s.state, a.action, w.actor, e.to_state,
       CASE WHEN w.actor = 'stranger' OR NOT EXISTS (
                SELECT FROM backend.state_transitions AS t WHERE t.machine = a.machine AND t.action = a.action AND w.actor = ANY (t.actors))
            THEN 'GX403 forbidden'
            WHEN e.to_state IS NULL THEN 'GX409 invalid_transition'
            ELSE e.to_state
       END AS expected
  FROM (SELECT DISTINCT machine, action FROM backend.state_transitions
         WHERE machine IN ('application', 'membership', 'invite') AND from_state IS NOT NULL AND action NOT IN ('redeem', 'expire', 'rejoin')) AS a
  JOIN (SELECT DISTINCT machine, to_state FROM backend.state_transitions) AS s(machine, state) USING (machine)
 CROSS JOIN (VALUES ('owner'), ('admin'), ('member'), ('applicant'), ('invitee'), ('job'), ('sweeper'), ('stranger')) AS w(actor)
  LEFT JOIN backend.state_transitions AS e
         ON e.machine = a.machine AND e.action = a.action AND e.from_state = s.state AND w.actor = ANY (e.actors)
 WHERE w.actor IN ('owner', 'admin', 'job', 'sweeper', 'stranger') OR w.actor = CASE a.machine WHEN 'membership' THEN 'member' WHEN 'invite' THEN 'invitee' ELSE 'applicant' END;
-- What no edge leads from or to.
CREATE TEMPORARY VIEW no_edges AS
SELECT f.machine, f.to_state AS from_state, t.to_state
  FROM (SELECT DISTINCT machine, to_state FROM backend.state_transitions) AS f
  JOIN (SELECT DISTINCT machine, to_state FROM backend.state_transitions) AS t USING (machine)
 WHERE f.machine IN ('game', 'application', 'membership', 'invite') AND f.to_state <> t.to_state
   AND NOT EXISTS (SELECT FROM backend.state_transitions AS e WHERE e.machine = f.machine AND e.from_state = f.to_state AND e.to_state = t.to_state);
SELECT plan(34 + (SELECT count(*)::integer FROM matrix) + (SELECT count(*)::integer FROM no_edges));

-- Attributes and privileges.
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('application_json', 'stable'), ('application_refusal', 'stable'), ('application_insert', 'volatile'), ('application_hold', 'volatile'),
               ('application_end', 'volatile'), ('application_approve', 'volatile'), ('applications_page', 'stable')) AS t(f, v);
SELECT has_view('backend', 'invariants_applications', 'what must never be seen is a view');
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.application_approve(gen_random_uuid(), gen_random_uuid(), 'admin', 'root')$$, '42501', NULL, 'backend_api approves through its door only');
RESET ROLE;

SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('eve') AS eve \gset
SELECT pg_temp.public_game(:'ann') AS game \gset
SELECT pg_temp.bring(:'game', 'enrollment_open') \g /dev/null
SELECT ((api.application_create(:'bob', :'game', '{"race_name": " Betas "}')).body::jsonb) AS made \gset
SELECT :'made'::jsonb ->> 'application_id' AS application \gset

-- What an application is.
SELECT is(
    :'made'::jsonb, jsonb_build_object('application_id', :'application', 'game_id', :'game', 'applicant_user_id', :'bob', 'race_name', 'Betas', 'status', 'submitted',
                                       'created_at', backend.ts(backend.now()), 'decided_at', NULL), 'an application is shown as the contract says');
SELECT is((SELECT count(*) FROM backend.race_names), 0::bigint, 'nobody holds a name that is only asked for');
SELECT results_eq(
    $$SELECT kind, user_id, payload FROM backend.notifications$$,
    format($$VALUES ('lobby.application.submitted', %L::uuid, jsonb_build_object('game_id', %L::uuid, 'application_id', %L::uuid))$$, :'ann', :'game', :'application'),
    'the owner is told');

-- The machines, all of them, by guard and by command.
SELECT pg_temp.public_game(:'ann', '{"game_name": "Machines"}') AS machines \gset
SELECT pg_temp.bring(:'machines', 'enrollment_open') \g /dev/null
SELECT pg_temp.join(:'machines', :'cid', 'Gammas') AS membership \gset
SELECT (api.application_create(:'bob', :'machines', '{"race_name": "Betas"}')).body::jsonb ->> 'application_id' AS other \gset
SELECT (api.invite_create(:'ann', :'machines', jsonb_build_object('invited_user_id', :'bob'), NULL, NULL)).body::jsonb ->> 'invite_id' AS invite \gset
CREATE FUNCTION pg_temp.attempt(p_machine text, p_state text, p_action text, p_actor text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    v_game backend.games := (SELECT g FROM backend.games AS g WHERE g.game_name = 'Machines');
    v_application backend.applications;
    v_membership backend.memberships;
    v_invite backend.invites;
    v_type text := CASE WHEN p_actor IN ('admin', 'job', 'sweeper') THEN p_actor ELSE 'user' END;
    v_id text := CASE p_actor
        WHEN 'owner' THEN v_game.owner_user_id::text
        WHEN 'stranger' THEN (SELECT user_id::text FROM backend.accounts WHERE email = 'eve@example.org')
        WHEN 'member' THEN (SELECT user_id::text FROM backend.accounts WHERE email = 'cid@example.org')
        WHEN 'applicant' THEN (SELECT user_id::text FROM backend.accounts WHERE email = 'bob@example.org')
        WHEN 'invitee' THEN (SELECT user_id::text FROM backend.accounts WHERE email = 'bob@example.org')
        ELSE 'root' END;
    v_reason backend.reason;
    v_said text;
    v_done text;
    v_statement text;
BEGIN
    PERFORM pg_temp.plant(CASE p_machine
        WHEN 'application' THEN format('UPDATE backend.applications SET status = %L, decided_at = %s WHERE game_id = %L', p_state, CASE p_state WHEN 'submitted' THEN 'NULL' ELSE 'now()' END, v_game.game_id)
        WHEN 'membership' THEN format('UPDATE backend.memberships SET status = %L, ended_at = %s, ended_by = NULL WHERE game_id = %L', p_state, CASE p_state WHEN 'active' THEN 'NULL' ELSE 'now()' END, v_game.game_id)
        ELSE format('UPDATE backend.invites SET status = %L, redeemed_by_user_id = %s WHERE game_id = %L', p_state, CASE p_state WHEN 'redeemed' THEN 'invited_user_id' ELSE 'NULL' END, v_game.game_id) END);
    SELECT * INTO v_application FROM backend.applications WHERE game_id = v_game.game_id;
    SELECT * INTO v_membership FROM backend.memberships WHERE game_id = v_game.game_id;
    SELECT * INTO v_invite FROM backend.invites WHERE game_id = v_game.game_id;
    CASE p_machine
        WHEN 'application' THEN
            v_reason := backend.application_refusal(v_game, v_application, p_action, v_type, v_id);
            v_statement := CASE WHEN v_type = 'user' THEN format('api.application_%s(%L, %L, %L)', p_action, v_id, v_game.game_id, v_application.application_id)
                                WHEN v_type = 'admin' AND p_action <> 'withdraw' THEN format('api.admin_application_%s(%L, %L, %L)', p_action, v_id, v_game.game_id, v_application.application_id) END;
        WHEN 'membership' THEN
            v_reason := backend.membership_refusal(v_game, v_membership, p_action, v_type, v_id);
            v_statement := CASE WHEN v_type = 'user' THEN format('api.membership_%s(%L, %L, %L)', p_action, v_id, v_game.game_id, v_membership.membership_id)
                                WHEN v_type = 'admin' AND p_action = 'block' THEN format('api.admin_game_ban_member(%L, %L, %L)', v_id, v_game.game_id, jsonb_build_object('user_id', v_membership.user_id, 'reason', 'x')) END;
        ELSE
            v_reason := backend.invite_refusal(v_game, v_invite, p_action, v_type, v_id);
            v_statement := CASE WHEN v_type = 'user' THEN format('api.invite_%s(%L, %L, %L)', p_action, v_id, v_game.game_id, v_invite.invite_id)
                                WHEN v_type = 'admin' AND p_action = 'revoke' THEN format('api.admin_invite_revoke(%L, %L, %L)', v_id, v_game.game_id, v_invite.invite_id) END;
    END CASE;
    v_said := CASE WHEN v_reason.code IS NULL THEN 'nothing' ELSE 'GX' || v_reason.status || ' ' || v_reason.code END;
    IF v_statement IS NULL THEN
        RETURN CASE v_said WHEN 'nothing' THEN (SELECT e.to_state FROM backend.state_transitions AS e WHERE e.machine = p_machine AND e.action = p_action AND e.from_state = p_state)
               ELSE v_said END;
    END IF;
    v_done := pg_temp.undone('SELECT 1', format('SELECT (%s)::jsonb ->> ''status''', v_statement));
    -- For whom it is not theirs to see, there is none.
    IF p_actor = 'stranger' AND v_done ~ '^GX404 (application|invite)_not_found$' THEN
        v_done := 'GX403 forbidden';
    END IF;
    RETURN CASE WHEN v_said = 'nothing' AND v_done !~ '^GX' THEN v_done WHEN v_said = v_done THEN v_said
                ELSE format('said %s and did %s', v_said, v_done) END;
END;
$$;
INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT is(pg_temp.attempt(machine, state, action, actor), expected, format('%s by %s of an %s that is %s: %s', action, actor, machine, state, expected))
  FROM matrix ORDER BY machine, state, action, actor;

-- By hand nobody leaves a machine.
CREATE FUNCTION pg_temp.by_hand(p_machine text, p_from text, p_to text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    v_table text := p_machine || 's';
    v_game_id uuid := (SELECT game_id FROM backend.games WHERE game_name = 'Machines');
BEGIN
    PERFORM pg_temp.plant(format('UPDATE backend.%I SET status = %L%s WHERE game_id = %L', v_table, p_from, CASE p_machine
        WHEN 'application' THEN format(', decided_at = %s', CASE p_from WHEN 'submitted' THEN 'NULL' ELSE 'now()' END)
        WHEN 'membership' THEN format(', ended_at = %s', CASE p_from WHEN 'active' THEN 'NULL' ELSE 'now()' END)
        WHEN 'invite' THEN format(', redeemed_by_user_id = %s', CASE p_from WHEN 'redeemed' THEN 'invited_user_id' ELSE 'NULL' END)
        ELSE '' END, v_game_id));
    RETURN pg_temp.answer(format('UPDATE backend.%I SET status = %L WHERE game_id = %L', v_table, p_to, v_game_id));
END;
$$;
SELECT is(pg_temp.by_hand(machine, from_state, to_state), 'GX409 invalid_transition', format('no %s goes by hand from %s to %s', machine, from_state, to_state))
  FROM no_edges ORDER BY machine, from_state, to_state;
SELECT pg_temp.plant(format('UPDATE backend.applications SET status = ''withdrawn'', decided_at = now() WHERE game_id = %L', :'machines')) \g /dev/null
SELECT pg_temp.plant(format('UPDATE backend.games SET status = ''enrollment_open'' WHERE game_id = %L', :'machines')) \g /dev/null

-- What refuses an application, in the order of the checks.
SELECT throws_ok(format('SELECT api.application_create(%L, %L, ''{"race_name": "Betas"}'')', :'bob', :'game'), 'GX409', 'already_applied', 'nobody applies twice');
SELECT pg_temp.sanction(:'bob', 'game_join_block') \g /dev/null
SELECT throws_ok(format('SELECT api.application_create(%L, %L, ''{"race_name": "Betas"}'')', :'bob', :'game'), 'GX403', 'sanctioned', 'nor under a block, which they are told first');
SELECT throws_ok(format('SELECT api.application_approve(%L, %L, %L)', :'ann', :'game', :'application'), 'GX403', 'sanctioned', 'and nobody who came under one is given a seat');
DELETE FROM backend.sanction_active;
SELECT throws_ok(format('SELECT api.application_create(%L, %L, ''{"race_name": "Alphas"}'')', :'ann', :'game'), 'GX422', 'eligibility_denied', 'nobody applies to a game of their own');
SELECT pg_temp.public_game() AS drafted \gset
SELECT throws_ok(format('SELECT api.application_create(%L, %L, ''{"race_name": "Etas"}'')', :'eve', :'drafted'), 'GX409', 'invalid_transition', 'nor before enrolment');
SELECT pg_temp.game(:'cid') AS private \gset
SELECT api.game_open_enrollment(:'cid', :'private') \g /dev/null
SELECT throws_ok(format('SELECT api.application_create(%L, %L, ''{"race_name": "Etas"}'')', :'eve', :'private'), 'GX404', 'game_not_found', 'a private game is not there');
SELECT api.invite_create(:'cid', :'private', jsonb_build_object('invited_user_id', :'eve'), NULL, NULL) \g /dev/null
SELECT throws_ok(format('SELECT api.application_create(%L, %L, ''{"race_name": "Etas"}'')', :'eve', :'private'), 'GX422', 'eligibility_denied', 'for who sees it an invite is the way');
SELECT pg_temp.set_limit(:'eve', 'max_pending_applications', 0) \g /dev/null
SELECT is(
    pg_temp.refused(format('SELECT api.application_create(%L, %L, ''{"race_name": "Etas"}'')', :'eve', :'game')) ->> 'hint', '{"limit": "max_pending_applications", "value": 0}',
    'nobody applies more often than they may');
DELETE FROM backend.limit_active WHERE user_id = :'eve';
SELECT throws_ok(format('SELECT api.application_create(%L, %L, ''{"race_name": "%s"}'')', :'eve', :'game', n), 'GX422', c, d)
  FROM (VALUES ('?!', 'invalid_name', 'a race has a name'), ('GAMMAS', 'name_taken', 'that nobody else holds')) AS t(n, c, d);

-- A name that is gone by the time of the approval.
SELECT pg_temp.undone(format('SELECT backend.race_name_reserve(%L, ''Betas'')', :'eve'), format('SELECT pg_temp.answer(%L)', format('SELECT api.application_approve(%L, %L, %L)', :'ann', :'game', :'application'))) AS late \gset
SELECT is(:'late'::text, 'GX422 name_taken', 'a name that is taken meanwhile is not given');
SELECT is((SELECT status FROM backend.applications WHERE application_id = :'application'), 'submitted', 'and the application waits');
UPDATE backend.games SET enrollment_ends_at = backend.now() WHERE game_id = :'game';
SELECT throws_ok(format('SELECT api.application_approve(%L, %L, %L)', :'ann', :'game', :'application'), 'GX422', 'enrollment_ended', 'no seat is given after the end of enrolment');
UPDATE backend.games SET enrollment_ends_at = backend.now() + interval '1 day' WHERE game_id = :'game';

-- Approved it is a seat; a full game gives none, but may be applied to.
UPDATE backend.games SET max_players = 2, min_players = 2 WHERE game_id = :'game';
SELECT is(api.application_approve(:'ann', :'game', :'application')::jsonb ->> 'status', 'approved', 'an owner approves');
SELECT results_eq(format('SELECT race_name, status FROM backend.memberships WHERE game_id = %L AND user_id = %L', :'game', :'bob'), $$VALUES ('Betas', 'active')$$, 'which is a seat');
SELECT is((SELECT tier FROM backend.race_names WHERE user_id = :'bob'), 'reservation', 'and a name');
SELECT is((SELECT count(*) FROM backend.notifications WHERE kind = 'lobby.application.approved' AND user_id = :'bob'), 1::bigint, 'who applied is told');
SELECT pg_temp.join(:'game', :'ann', 'Alphas') \g /dev/null
SELECT (api.application_create(:'eve', :'game', '{"race_name": "Etas"}')).body::jsonb ->> 'application_id' AS eves \gset
SELECT throws_ok(format('SELECT api.application_approve(%L, %L, %L)', :'ann', :'game', :'eves'), 'GX422', 'game_full', 'a full game gives none');
SELECT api.game_ready_to_start(:'ann', :'game') \g /dev/null
SELECT is((SELECT status FROM backend.applications WHERE application_id = :'eves'), 'rejected', 'when enrolment closes, what is open is rejected');
SELECT is((SELECT count(*) FROM backend.notifications WHERE kind = 'lobby.application.rejected' AND user_id = :'eve'), 1::bigint, 'and who applied is told');

-- Invariants.
SELECT is_empty('SELECT * FROM backend.invariants_applications', 'nothing is wrong');
SELECT pg_temp.plant(format('UPDATE backend.applications SET status = ''submitted'', decided_at = NULL WHERE application_id = %L', :'eves')) \g /dev/null
SELECT pg_temp.plant(format('UPDATE backend.memberships SET status = ''active'', ended_at = NULL WHERE (game_id, user_id) = (SELECT a.game_id, a.applicant_user_id FROM backend.applications AS a WHERE a.application_id = %L)', :'eves')) \g /dev/null
SELECT pg_temp.plant(format('INSERT INTO backend.memberships (game_id, user_id, race_name, race_name_canonical) SELECT a.game_id, a.applicant_user_id, ''Planted'', ''planted'' FROM backend.applications AS a WHERE a.application_id = %L ON CONFLICT DO NOTHING', :'eves')) \g /dev/null
SELECT pg_temp.plant(format('UPDATE backend.games SET visibility = ''private'' WHERE game_id = %L', :'machines')) \g /dev/null
SELECT pg_temp.plant(format('DELETE FROM backend.memberships WHERE game_id = %L AND user_id = %L', :'game', :'bob')) \g /dev/null
SELECT set_eq('SELECT invariant FROM backend.invariants_applications',
    $$VALUES ('open_application_to_a_game_that_is_closed'), ('application_to_a_private_game'), ('approved_without_a_seat'), ('open_application_of_a_member')$$, 'what was done by hand is listed');

SELECT * FROM finish();
ROLLBACK;
