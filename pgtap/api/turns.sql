-- Test galaxy-backend:api/turns

BEGIN;
SELECT plan(41);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
SELECT function_returns('api', 'engine_access', ARRAY['uuid', 'uuid', 'boolean'], 'text', 'engine_access() has one answer');
SELECT volatility_is('api', 'engine_access', ARRAY['uuid', 'uuid', 'boolean'], 'stable', 'engine_access() is STABLE');
SELECT is_definer('api', 'engine_access', ARRAY['uuid', 'uuid', 'boolean'], 'engine_access() has its owner''s rights');
SELECT function_privs_are('api', 'engine_access', ARRAY['uuid', 'uuid', 'boolean'], r, p::name[], format('%s may execute it: %s', r, p <> '{}'))
  FROM (VALUES ('backend_api', '{EXECUTE}'), ('backend_worker', '{}'), ('backend_push', '{}')) AS t(r, p);

SELECT pg_temp.person('ann', 'monthly') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, pg_temp.person('eve') AS eve, gen_random_uuid() AS nobody \gset
SELECT pg_temp.set_limit(u::uuid, l, 50) FROM unnest(ARRAY[:'ann', :'bob', :'cid']) AS u, unnest(ARRAY['max_owned_private_games', 'max_active_memberships']) AS l \g /dev/null
CREATE TEMPORARY TABLE at_state (state text, game_id uuid);
DO $$
DECLARE
    v_ann uuid := (SELECT user_id FROM backend.accounts WHERE email = 'ann@example.org');
    v_bob uuid := (SELECT user_id FROM backend.accounts WHERE email = 'bob@example.org');
    v_cid uuid := (SELECT user_id FROM backend.accounts WHERE email = 'cid@example.org');
    v_state text;
    v_game_id uuid;
BEGIN
    FOR v_state IN SELECT DISTINCT to_state FROM backend.state_transitions WHERE machine = 'game' LOOP
        v_game_id := pg_temp.game(v_ann);
        PERFORM pg_temp.join(v_game_id, v_bob, 'Betas'), pg_temp.join(v_game_id, v_cid, 'Gammas'), pg_temp.bring(v_game_id, v_state);
        INSERT INTO at_state VALUES (v_state, v_game_id);
    END LOOP;
END;
$$;
SELECT (SELECT game_id FROM at_state WHERE state = 'running') AS running \gset

-- When.
SELECT is(
    pg_temp.answer(format('SELECT api.engine_access(%L, %L, %L)', :'bob', game_id, c)),
    CASE WHEN state = 'running' OR (NOT c AND state IN ('paused', 'finished')) THEN 'done' ELSE 'GX409 game_not_running' END,
    format('a game that is %s takes a %s', state, CASE WHEN c THEN 'command' ELSE 'question' END))
  FROM at_state, unnest(ARRAY[true, false]) AS c ORDER BY state, c;
SELECT throws_ok(
    format('SELECT api.engine_access(%L, %L, false)', :'bob', (SELECT game_id FROM at_state WHERE state = 'draft')), 'GX409', 'game_not_running', 'before the start there is nothing to ask');

-- Who, where and as whom.
SET LOCAL ROLE backend_api;
SELECT is(
    api.engine_access(u::uuid, :'running', true)::jsonb, jsonb_build_object('endpoint', 'http://engine:8080', 'race_name', r, 'current_turn', 0), 'a member speaks as their own race')
  FROM (VALUES (:'bob', 'Betas'), (:'cid', 'Gammas')) AS t(u, r);
SELECT throws_ok(format('SELECT api.engine_access(%L, %L, false)', u, g), 'GX404', 'game_not_found', d)
  FROM (VALUES (:'ann', :'running', 'an owner who does not play has no race'), (:'eve', :'running', 'nobody else has'), (:'bob', :'nobody', 'nor has anybody in no game')) AS t(u, g, d);
RESET ROLE;
UPDATE backend.memberships SET status = 'removed', ended_at = backend.now() WHERE game_id = :'running' AND user_id = :'cid';
SELECT throws_ok(format('SELECT api.engine_access(%L, %L, false)', :'cid', :'running'), 'GX404', 'game_not_found', 'who has gone speaks for no race any more');

-- The engine itself.
SELECT is(
    pg_temp.undone(format($$UPDATE backend.runtime_records SET %s WHERE game_id = %L$$, v, :'running'),
                   format('SELECT pg_temp.answer(%L)', format('SELECT api.engine_access(%L, %L, true)', :'bob', :'running'))), e, d)
  FROM (VALUES
    ('endpoint = NULL', 'GX409 game_not_running', 'an engine that is nowhere is not asked'),
    ($$status = 'stopped'$$, 'GX409 game_not_running', 'nor one that is stopped'),
    ($$status = 'removed'$$, 'GX409 game_not_running', 'or removed'),
    ($$status = 'starting'$$, 'GX409 game_not_running', 'or not up yet'),
    ($$status = 'engine_unreachable'$$, 'done', 'one that did not answer may answer now'),
    ($$status = 'generating'$$, 'done', 'one that computes says itself what it takes')
  ) AS t(v, e, d);

-- Those who may not.
SELECT throws_ok(format('SELECT api.engine_access(%L, %L, true)', :'nobody', :'running'), 'GX404', 'account_not_found', 'nobody has no engine');
SELECT pg_temp.sanction(:'bob', 'login_block') \g /dev/null
SELECT throws_ok(format('SELECT api.engine_access(%L, %L, true)', :'bob', :'running'), 'GX403', 'sanctioned', 'nor who may not sign in');
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'bob';
SELECT throws_ok(format('SELECT api.engine_access(%L, %L, true)', :'bob', :'running'), 'GX403', 'account_blocked', 'nor who is blocked');
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'bob';
SELECT throws_ok(format('SELECT api.engine_access(%L, %L, true)', :'bob', :'running'), 'GX403', 'account_deleted', 'nor who is gone');

SELECT * FROM finish();
ROLLBACK;
