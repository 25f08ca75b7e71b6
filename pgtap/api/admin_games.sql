-- Test galaxy-backend:api/admin_games

BEGIN;
SELECT plan(324);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], returns text, volatility text);
INSERT INTO functions VALUES
    ('admin_game_list', ARRAY['text', 'integer', 'text', 'text', 'text[]', 'uuid', 'text'], 'text', 'stable'),
    ('admin_game_create', ARRAY['text', 'jsonb'], 'api.reply', 'volatile'),
    ('admin_game_get', ARRAY['text', 'uuid'], 'text', 'stable'),
    ('admin_game_update', ARRAY['text', 'uuid', 'jsonb'], 'text', 'volatile'),
    ('admin_game_open_enrollment', ARRAY['text', 'uuid'], 'text', 'volatile'),
    ('admin_game_ready_to_start', ARRAY['text', 'uuid'], 'text', 'volatile'),
    ('admin_game_start', ARRAY['text', 'uuid'], 'text', 'volatile'),
    ('admin_game_retry_start', ARRAY['text', 'uuid'], 'text', 'volatile'),
    ('admin_game_pause', ARRAY['text', 'uuid'], 'text', 'volatile'),
    ('admin_game_resume', ARRAY['text', 'uuid'], 'text', 'volatile'),
    ('admin_game_cancel', ARRAY['text', 'uuid'], 'text', 'volatile'),
    ('admin_game_force_start', ARRAY['text', 'uuid'], 'text', 'volatile'),
    ('admin_game_force_stop', ARRAY['text', 'uuid'], 'text', 'volatile'),
    ('admin_game_ban_member', ARRAY['text', 'uuid', 'jsonb'], 'text', 'volatile'),
    ('admin_game_history_list', ARRAY['text', 'uuid', 'integer', 'text'], 'text', 'stable'),
    ('admin_membership_list', ARRAY['text', 'uuid', 'integer', 'text'], 'text', 'stable'),
    ('admin_application_list', ARRAY['text', 'uuid', 'integer', 'text'], 'text', 'stable'),
    ('admin_application_approve', ARRAY['text', 'uuid', 'uuid'], 'text', 'volatile'),
    ('admin_application_reject', ARRAY['text', 'uuid', 'uuid'], 'text', 'volatile'),
    ('admin_invite_create', ARRAY['text', 'uuid', 'jsonb', 'text', 'bytea'], 'api.reply', 'volatile'),
    ('admin_invite_list', ARRAY['text', 'uuid', 'integer', 'text'], 'text', 'stable'),
    ('admin_invite_get', ARRAY['text', 'uuid', 'uuid'], 'text', 'stable'),
    ('admin_invite_revoke', ARRAY['text', 'uuid', 'uuid'], 'text', 'volatile');
SELECT function_returns('api', name, arguments, returns, format('%s() answers %s', name, returns)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('eve') AS eve, gen_random_uuid() AS nobody \gset
SELECT pg_temp.set_limit(u::uuid, l, 50) FROM unnest(ARRAY[:'ann', :'bob']) AS u, unnest(ARRAY['max_owned_private_games', 'max_active_memberships']) AS l \g /dev/null

-- A public game, with nobody but administrators to run it, or with an owner.
SELECT (r).status, (r).body, (r).location FROM (SELECT api.admin_game_create('root', pg_temp.body('{"game_name": "Öpen Season"}')) AS r OFFSET 0) AS t \gset
SELECT :'body'::jsonb ->> 'game_id' AS game \gset
SELECT is(:status, 201, 'a game is created');
SELECT is(:'location'::text, '/api/v1/admin/games/' || :'game', 'and is found there');
SELECT is(api.admin_game_get('root', :'game')::jsonb, :'body'::jsonb, 'as it is');
SELECT is(:'body'::jsonb ->> 'visibility' || ' ' || coalesce(:'body'::jsonb ->> 'owner_user_id', 'nobody'), 'public nobody', 'public, and nobody''s');
SELECT is(api.game_get(:'eve', :'game')::jsonb, :'body'::jsonb, 'everybody sees it');
SELECT throws_ok(format('SELECT api.game_cancel(%L, %L)', :'eve', :'game'), 'GX403', 'forbidden', 'and runs it not');
SELECT (api.admin_game_create('root', pg_temp.body(jsonb_build_object('owner_user_id', :'ann')))).body::jsonb ->> 'game_id' AS owned \gset
SELECT is(api.game_open_enrollment(:'ann', :'owned')::jsonb ->> 'status', 'enrollment_open', 'an owner runs theirs');
SELECT throws_ok(format('SELECT api.admin_game_create(''root'', %L)', pg_temp.body(jsonb_build_object('owner_user_id', :'nobody'))), 'GX422', 'eligibility_denied', 'who is somebody');
SELECT throws_ok(format('SELECT api.admin_game_create(''root'', %L)', pg_temp.body('{"turn_schedule": "often"}')), 'GX400', 'invalid_request', 'what is malformed is told');
SELECT is((SELECT count(*) FROM backend.games WHERE owner_user_id = :'ann' AND visibility = 'private'), 0::bigint, 'that is no private game of theirs');

-- Lists: every filter.
SELECT pg_temp.game(:'bob', '{"game_name": "Private 100%"}') AS private \gset
CREATE FUNCTION pg_temp.ids(p_page text) RETURNS uuid[]
LANGUAGE sql
RETURN (SELECT coalesce(array_agg((i ->> 'game_id')::uuid ORDER BY n), '{}') FROM jsonb_array_elements(p_page::jsonb -> 'items') WITH ORDINALITY AS t(i, n));
SELECT is(pg_temp.ids(api.admin_game_list('root', 50, NULL, v, s::text[], u::uuid, q)), (w::text)::uuid[], d)
  FROM (VALUES
    (NULL, NULL, NULL, NULL, ARRAY[:'private', :'owned', :'game'], 'all, newest first'),
    ('public', NULL, NULL, NULL, ARRAY[:'owned', :'game'], 'of a visibility'),
    (NULL, '{draft}', NULL, NULL, ARRAY[:'private', :'game'], 'of a status'),
    (NULL, '{draft,draft,enrollment_open}', NULL, NULL, ARRAY[:'private', :'owned', :'game'], 'or of several, each once'),
    (NULL, NULL, :'ann', NULL, ARRAY[:'owned'], 'of an owner'),
    (NULL, NULL, NULL, 'öPEN s', ARRAY[:'game'], 'with a part of the name, in any case'),
    (NULL, NULL, NULL, '100%', ARRAY[:'private'], 'as it is written'),
    (NULL, NULL, NULL, '_', '{}'::text[], 'which stands for nothing else'),
    ('private', '{running}', NULL, NULL, '{}', 'or none')) AS t(v, s, u, q, w, d);
SELECT api.admin_game_list('root', 2, NULL, NULL, NULL, NULL, NULL) AS page1 \gset
SELECT is(pg_temp.ids(:'page1') || pg_temp.ids(api.admin_game_list('root', 2, :'page1'::jsonb ->> 'next_cursor', NULL, NULL, NULL, NULL)),
    pg_temp.ids(api.admin_game_list('root', 50, NULL, NULL, NULL, NULL, NULL)), 'in pages');
SELECT throws_ok(format('SELECT api.admin_game_list(''root'', 2, %L, ''public'', NULL, NULL, NULL)', :'page1'::jsonb ->> 'next_cursor'), 'GX400', 'invalid_cursor', 'a cursor is of one filter');
SELECT is(pg_temp.ids(api.game_list(:'eve', 50, NULL, NULL, NULL)), ARRAY[:'owned', :'game']::uuid[], 'people see the public ones');
SELECT is(pg_temp.ids(api.game_list(:'eve', 50, NULL, '{enrollment_open}', 'test')), ARRAY[:'owned']::uuid[], 'filtered likewise');

-- Every command in every state.
CREATE TEMPORARY TABLE at_state (state text PRIMARY KEY, game_id uuid);
DO $$
DECLARE
    v_ann uuid := (SELECT user_id FROM backend.accounts WHERE email = 'ann@example.org');
    v_bob uuid := (SELECT user_id FROM backend.accounts WHERE email = 'bob@example.org');
    v_state text;
    v_game_id uuid;
BEGIN
    FOR v_state IN SELECT DISTINCT to_state FROM backend.state_transitions WHERE machine = 'game' ORDER BY 1 LOOP
        v_game_id := pg_temp.game(v_ann, '{"race_name": "Alphas"}');
        PERFORM pg_temp.join(v_game_id, v_bob, 'Betas');
        INSERT INTO at_state VALUES (v_state, v_game_id);
        ASSERT pg_temp.bring(v_game_id, v_state) = v_state;
    END LOOP;
END;
$$;
CREATE TEMPORARY VIEW commands AS
SELECT DISTINCT t.action, 'admin_game_' || replace(t.action, '-', '_') AS name
  FROM backend.state_transitions AS t WHERE t.machine = 'game' AND 'admin' = ANY (t.actors) AND t.from_state IS NOT NULL;
SELECT is(
    pg_temp.undone(format('SELECT api.%I(''root'', %L)', c.name, s.game_id), format('SELECT pg_temp.state(%L)', s.game_id)),
    coalesce(e.to_state, 'GX409 invalid_transition'), format('%s of a game that is %s', c.name, s.state))
  FROM at_state AS s CROSS JOIN commands AS c
  LEFT JOIN backend.state_transitions AS e ON e.machine = 'game' AND e.action = c.action AND e.from_state = s.state AND 'admin' = ANY (e.actors)
 ORDER BY s.state, c.name;
SELECT throws_ok(format('SELECT api.%I(''root'', %L)', name, :'nobody'), 'GX404', 'game_not_found', format('%s of a game that is not there', name)) FROM commands;
SELECT is(
    pg_temp.undone(format('SELECT api.admin_game_pause(''root'', %L)', (SELECT game_id FROM at_state WHERE state = 'running')),
                   'SELECT admin || '' '' || action || '' '' || details::text FROM backend.audit_log ORDER BY audit_id DESC LIMIT 1'),
    'root admin_game_pause {"to": "paused", "from": "running"}', 'which is written down');
SELECT is(
    pg_temp.undone(format('SELECT api.admin_game_force_stop(''root'', %L)', (SELECT game_id FROM at_state WHERE state = 'running')),
                   format('SELECT wanted || '' '' || (SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE task_name = ''runtime_remove'' AND args ->> ''game_id'' = %L) FROM backend.runtime_records WHERE game_id = %L',
                          (SELECT game_id FROM at_state WHERE state = 'running'), (SELECT game_id FROM at_state WHERE state = 'running'))),
    'removed 1', 'an engine that is stopped by force is taken away');
SELECT (api.invite_create(:'ann', (SELECT game_id FROM at_state WHERE state = 'enrollment_open'), jsonb_build_object('invited_user_id', :'eve'), NULL, NULL)).status \g /dev/null
SELECT is(
    pg_temp.undone(format('SELECT api.admin_game_force_start(''root'', %L)', (SELECT game_id FROM at_state WHERE state = 'enrollment_open')),
                   'SELECT string_agg(DISTINCT status, '','') FROM backend.invites'), 'revoked', 'a start by force closes enrolment');

-- A game is changed, as far as its state allows.
SELECT is(
    (SELECT string_agg(a, ' ') FROM (SELECT pg_temp.undone('SELECT 1', format('SELECT pg_temp.answer(%L)', format('SELECT api.admin_game_update(''root'', %L, %L)', g.game_id, b))) AS a
      FROM unnest(ARRAY['{"description": "new"}', '{"max_players": 9}']) AS b) AS t),
    CASE WHEN state = 'draft' THEN 'done done' WHEN state IN ('enrollment_open', 'ready_to_start', 'start_failed') THEN 'done GX409 invalid_transition'
         ELSE 'GX409 invalid_transition GX409 invalid_transition' END, format('what is changed of a game that is %s', state))
  FROM at_state AS g ORDER BY state;
SELECT throws_ok(format('SELECT api.admin_game_update(''root'', %L, ''{"turn_schedule": "often"}'')', :'game'), 'GX400', 'invalid_request', 'what is malformed is told');
SELECT throws_ok(format('SELECT api.admin_game_update(''root'', %L, ''{"min_players": 9}'')', :'game'), 'GX400', 'invalid_request', 'also where it does not fit what there is');
SELECT throws_ok(format('SELECT api.admin_game_update(''root'', %L, ''{"description": "x"}'')', :'nobody'), 'GX404', 'game_not_found', 'of a game that there is');

-- Members.
SELECT game_id AS running FROM at_state WHERE state = 'running' \gset
SELECT is(api.admin_game_ban_member('root', :'running', jsonb_build_object('user_id', :'bob', 'reason', 'x'))::jsonb ->> 'status', 'blocked', 'a member is banned');
SELECT is((SELECT banish_wanted_at FROM backend.memberships WHERE game_id = :'running' AND user_id = :'bob'), backend.now(), 'whose race the engine is to banish');
SELECT is((SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE task_name = 'runtime_banish' AND args ->> 'game_id' = :'running'), 1::bigint, 'a job sees to it');
SELECT is((SELECT count(*) FROM backend.notifications WHERE kind = 'lobby.membership.blocked' AND user_id = :'bob'), 1::bigint, 'and they are told');
SELECT throws_ok(format('SELECT api.admin_game_ban_member(''root'', %L, %L)', :'running', jsonb_build_object('user_id', :'bob', 'reason', 'x')), 'GX409', 'invalid_transition', 'once');
SELECT throws_ok(format('SELECT api.admin_game_ban_member(''root'', %L, %L)', :'running', jsonb_build_object('user_id', :'eve', 'reason', 'x')), 'GX404', 'membership_not_found', 'who has no seat has none to lose');
SELECT is(jsonb_array_length(api.admin_membership_list('root', :'running', 50, NULL)::jsonb -> 'items'), 2, 'who sat there is still seen');
SELECT is(api.admin_game_history_list('root', :'running', 1, NULL)::jsonb -> 'items' -> 0 ->> 'action', 'create', 'and what has happened');

-- Applications and invites.
SELECT api.admin_game_open_enrollment('root', :'game') \g /dev/null
SELECT (api.application_create(:'cid', :'game', '{"race_name": "Gammas"}')).body::jsonb ->> 'application_id' AS cids \gset
SELECT (api.application_create(:'eve', :'game', '{"race_name": "Etas"}')).body::jsonb ->> 'application_id' AS eves \gset
SELECT is(
    pg_temp.undone(s, format('SELECT pg_temp.answer(%L)', format('SELECT api.admin_application_approve(''root'', %L, %L)', :'game', :'cids'))), st || ' ' || c, format('no seat is given: %s', c))
  FROM (VALUES
    ('GX403', 'sanctioned', format('SELECT pg_temp.sanction(%L, ''game_join_block'')', :'cid')),
    ('GX409', 'already_member', format('SELECT pg_temp.join(%L, %L, ''Others'')', :'game', :'cid')),
    ('GX422', 'eligibility_denied', format('SELECT pg_temp.join(%1$L, %2$L, ''Others''); UPDATE backend.memberships SET status = ''blocked'', ended_at = now() WHERE game_id = %1$L AND user_id = %2$L', :'game', :'cid')),
    ('GX422', 'enrollment_ended', format('UPDATE backend.games SET enrollment_ends_at = backend.now() WHERE game_id = %L', :'game')),
    ('GX422', 'game_full', format('UPDATE backend.games SET max_players = 2 WHERE game_id = %1$L; SELECT pg_temp.join(%1$L, %2$L, ''Others''), pg_temp.join(%1$L, %3$L, ''More'')', :'game', :'bob', :'eve')),
    ('GX422', 'invalid_name', format('UPDATE backend.applications SET race_name = ''?!'' WHERE application_id = %L', :'cids')),
    ('GX422', 'limit_reached', format('SELECT pg_temp.set_limit(%L, ''max_active_memberships'', 0)', :'cid')),
    ('GX422', 'name_taken', format('SELECT backend.race_name_reserve(%L, race_name) FROM backend.applications WHERE application_id = %L', :'eve', :'cids'))
  ) AS t(st, c, s);
SELECT is(
    pg_temp.undone(s, format('SELECT pg_temp.answer(%L)', format('SELECT api.admin_invite_create(''root'', %L, %L, NULL, NULL)', :'game', jsonb_build_object('invited_user_id', :'eve')))), st || ' ' || c, format('nobody is invited: %s', c))
  FROM (VALUES
    ('GX409', 'already_invited', format('SELECT api.admin_invite_create(''root'', %L, %L, NULL, NULL)', :'game', jsonb_build_object('invited_user_id', :'eve'))),
    ('GX409', 'already_member', format('SELECT pg_temp.join(%L, %L, ''Others'')', :'game', :'eve'))) AS t(st, c, s);
UPDATE backend.engine_versions SET enabled = false;
SELECT throws_ok(format('SELECT api.admin_game_create(''root'', %L)', pg_temp.body()), 'GX422', 'engine_version_unavailable', 'without an engine there is no game');
UPDATE backend.engine_versions SET enabled = true;
SELECT is(jsonb_array_length(api.admin_application_list('root', :'game', 50, NULL)::jsonb -> 'items'), 2, 'applications are seen');
SELECT is(api.admin_application_approve('root', :'game', :'cids')::jsonb ->> 'status', 'approved', 'approved');
SELECT is(api.admin_application_reject('root', :'game', :'eves')::jsonb ->> 'status', 'rejected', 'or rejected');
SELECT throws_ok(format('SELECT api.admin_application_reject(''root'', %L, %L)', :'game', :'eves'), 'GX409', 'invalid_transition', 'once');
SELECT throws_ok(format('SELECT api.admin_application_approve(''root'', %L, %L)', :'game', :'nobody'), 'GX404', 'application_not_found', 'if there are any');
SELECT (r).status AS invited, (r).body AS invite, (r).location AS place FROM (SELECT api.admin_invite_create('root', :'game', jsonb_build_object('invited_user_id', :'eve'), NULL, NULL) AS r OFFSET 0) AS t \gset
SELECT is(:'place'::text, format('/api/v1/admin/games/%s/invites/%s', :'game', :'invite'::jsonb ->> 'invite_id'), 'an invite is found');
SELECT is(api.admin_invite_get('root', :'game', (:'invite'::jsonb ->> 'invite_id')::uuid)::jsonb, :'invite'::jsonb, 'as it is');
SELECT is((SELECT payload ->> 'inviter_user_id' FROM backend.notifications WHERE kind = 'lobby.invite.received' AND payload ->> 'game_id' = :'game'), NULL, 'who is invited is told, by nobody in particular');
SELECT is((SELECT count(*) FROM backend.notification_malformed_intents), 0::bigint, 'which is well-formed');
SELECT throws_ok(format('SELECT api.admin_invite_create(''root'', %L, ''{}'', ''X'', sha256(''X''))', :'private'), 'GX422', 'eligibility_denied', 'a private game has an owner for that');
SELECT is(jsonb_array_length(api.admin_invite_list('root', :'game', 50, NULL)::jsonb -> 'items'), 1, 'invites are seen');
SELECT is(api.admin_invite_revoke('root', :'game', (:'invite'::jsonb ->> 'invite_id')::uuid)::jsonb ->> 'status', 'revoked', 'and taken back');
SELECT throws_ok(format('SELECT api.admin_invite_revoke(''root'', %L, %L)', :'game', :'invite'::jsonb ->> 'invite_id'), 'GX409', 'invalid_transition', 'once');
SELECT throws_ok(format('SELECT api.admin_invite_get(''root'', %L, %L)', :'game', :'nobody'), 'GX404', 'invite_not_found', 'if there are any');
SELECT results_eq(
    $$SELECT DISTINCT action COLLATE "C" FROM backend.audit_log ORDER BY 1$$,
    $$VALUES ('admin_application_approve' COLLATE "C"), ('admin_application_reject'), ('admin_game_ban_member'), ('admin_game_create'), ('admin_game_open_enrollment'),
             ('admin_invite_create'), ('admin_invite_revoke')$$, 'all that was done is written down');
SELECT is_empty('SELECT * FROM backend.invariants', 'and nothing is wrong');

-- Those who may not.
SELECT throws_ok(format('SELECT api.%I(''nobody'', %s)', name, (
    SELECT string_agg(CASE a WHEN 'uuid' THEN format('%L', :'game') WHEN 'jsonb' THEN '''{}''' WHEN 'integer' THEN '50' ELSE 'NULL' END, ', ' ORDER BY n)
      FROM unnest(arguments) WITH ORDINALITY AS u(a, n) WHERE n > 1)), 'GX401', 'unauthorized', format('%s is for administrators', name)) FROM functions;

SELECT * FROM finish();
ROLLBACK;
