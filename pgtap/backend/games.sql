-- Test galaxy-backend:backend/games

BEGIN;
SELECT plan(85);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes.
SELECT has_table('backend', t, format('there is %s', t)) FROM unnest(ARRAY['games', 'game_history', 'memberships', 'invites']) AS t;
SELECT col_is_pk('backend', t, c, format('%s has an id', t))
  FROM (VALUES ('games', 'game_id'), ('game_history', 'history_id'), ('memberships', 'membership_id'), ('invites', 'invite_id')) AS t(t, c);
SELECT fk_ok('backend', t, c, 'backend', f, k, format('%s.%s is of %s', t, c, f))
  FROM (VALUES ('games', 'owner_user_id', 'accounts', 'user_id'), ('games', 'target_engine_version', 'engine_versions', 'version'),
               ('game_history', 'game_id', 'games', 'game_id'), ('memberships', 'game_id', 'games', 'game_id'), ('memberships', 'user_id', 'accounts', 'user_id'),
               ('invites', 'game_id', 'games', 'game_id'), ('invites', 'inviter_user_id', 'accounts', 'user_id'),
               ('invites', 'invited_user_id', 'accounts', 'user_id'), ('invites', 'redeemed_by_user_id', 'accounts', 'user_id')) AS t(t, c, f, k);
SELECT index_is_unique('backend', 'memberships', 'memberships_one_race_name_per_game', 'a race name is of one seat');
SELECT has_index('backend', t, i, c, d)
  FROM (VALUES ('game_history', 'game_history_by_game', ARRAY['game_id', 'history_id'], 'a history is found in order'),
               ('invites', 'invites_by_game', ARRAY['game_id', 'invite_id'], 'a game''s invites are found in order'),
               ('memberships', 'memberships_by_user', ARRAY['user_id', 'game_id'], 'a person''s seats are found')) AS t(t, i, c, d);

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok(format('SELECT FROM backend.%I', t), '42501', NULL, format('backend_api sees %s through its door only', t))
  FROM unnest(ARRAY['games', 'game_history', 'memberships', 'invites']) AS t;
SELECT throws_ok('UPDATE backend.games SET status = ''finished''', '42501', NULL, 'and ends no game by hand');
RESET ROLE;

-- The machines, as the rules have them.
SELECT set_eq(
    $$SELECT action, from_state, to_state, a FROM backend.state_transitions, unnest(actors) AS a WHERE machine = 'game'$$,
    $$SELECT e.action, f, e.to_state, a
        FROM (VALUES
          ('create', ARRAY[NULL], 'draft', 'owner,admin'),
          ('open-enrollment', ARRAY['draft'], 'enrollment_open', 'owner,admin'),
          ('ready-to-start', ARRAY['enrollment_open'], 'ready_to_start', 'owner,admin,sweeper'),
          ('start', ARRAY['ready_to_start'], 'starting', 'owner,admin'),
          ('runtime-started', ARRAY['starting'], 'running', 'job'),
          ('runtime-failed', ARRAY['starting'], 'start_failed', 'job'),
          ('retry-start', ARRAY['start_failed'], 'starting', 'owner,admin'),
          ('pause', ARRAY['running'], 'paused', 'owner,admin'),
          ('engine-unreachable', ARRAY['running'], 'paused', 'job'),
          ('generation-failed', ARRAY['running'], 'paused', 'job'),
          ('container-gone', ARRAY['running'], 'paused', 'job'),
          ('resume', ARRAY['paused'], 'running', 'owner,admin'),
          ('finish', ARRAY['running', 'paused'], 'finished', 'job'),
          ('cancel', ARRAY['draft', 'enrollment_open', 'ready_to_start', 'start_failed'], 'cancelled', 'owner,admin,job'),
          ('cancel', ARRAY['enrollment_open'], 'cancelled', 'sweeper'),
          ('force-start', ARRAY['ready_to_start', 'enrollment_open'], 'starting', 'admin'),
          ('force-stop', ARRAY['starting', 'running', 'paused'], 'cancelled', 'admin')
        ) AS e(action, from_states, to_state, actors), unnest(e.from_states) AS f, unnest(string_to_array(e.actors, ',')) AS a$$,
    'a game has these edges, and these may take them');
SELECT set_eq(
    $$SELECT action, from_state, to_state FROM backend.state_transitions WHERE machine = 'membership'$$,
    $$VALUES ('join', NULL, 'active'), ('remove', 'active', 'removed'), ('block', 'active', 'blocked'), ('rejoin', 'removed', 'active')$$,
    'who is removed may come back, who is blocked may not');
SELECT set_eq(
    $$SELECT action, from_state, to_state FROM backend.state_transitions WHERE machine = 'invite'$$,
    $$VALUES ('create', NULL, 'created'), ('redeem', 'created', 'redeemed'), ('decline', 'created', 'declined'), ('revoke', 'created', 'revoked'),
             ('expire', 'created', 'expired')$$, 'an invite has one end');
SELECT set_eq(
    $$SELECT DISTINCT a FROM backend.state_transitions, unnest(actors) AS a$$, $$VALUES ('owner'), ('admin'), ('member'), ('applicant'), ('invitee'), ('job'), ('sweeper')$$, 'there are no other actors');

-- What an UPDATE by hand can do to a game itself.
SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob \gset
SELECT pg_temp.game(:'ann') AS game \gset
CREATE FUNCTION pg_temp.move(p_game_id uuid, p_from text, p_to text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_temp.plant(format('UPDATE backend.games SET status = %L WHERE game_id = %L', p_from, p_game_id));
    UPDATE backend.games SET status = p_to WHERE game_id = p_game_id;
    RETURN true;
EXCEPTION WHEN SQLSTATE 'GX409' OR not_null_violation THEN
    RETURN false;
END;
$$;
CREATE TEMPORARY VIEW states AS
SELECT to_state AS state FROM backend.state_transitions WHERE machine = 'game' UNION VALUES ('no_such_state');
SELECT set_eq(
    format($$SELECT f.state AS from_state, t.state AS to_state FROM states AS f, states AS t
              WHERE f.state NOT IN (t.state, 'no_such_state') AND pg_temp.move(%L, f.state, t.state)$$, :'game'),
    $$SELECT DISTINCT from_state, to_state FROM backend.state_transitions WHERE machine = 'game' AND from_state IS NOT NULL$$,
    'an UPDATE by hand leaves no state but along an edge');
SELECT is(pg_temp.move(:'game', s, NULL), false, format('a game that is %s does not come to nothing', s)) FROM (SELECT state FROM states WHERE state <> 'no_such_state') AS t(s);
SELECT pg_temp.plant(format($$UPDATE backend.games SET status = 'draft' WHERE game_id = %L$$, :'game')) \g /dev/null

-- Constraints.
CREATE FUNCTION pg_temp.fill(p_text text, p_ann text, p_bob text, p_game text) RETURNS text
LANGUAGE sql
RETURN replace(replace(replace(p_text, ':ann', quote_literal(p_ann)), ':bob', quote_literal(p_bob)), ':game', quote_literal(p_game));
SELECT is(pg_temp.violated(format('UPDATE backend.games SET %s WHERE game_id = %L', v, :'game')), c, d)
  FROM (VALUES
    ($$game_name = ''$$, 'games_name_has_1_to_64_characters', 'a game''s name is something'),
    (format('game_name = %L', repeat('x', 65)), 'games_name_has_1_to_64_characters', 'and not too long'),
    (format('game_name = %L', repeat('ü', 64)), 'nothing', 'in characters, not in bytes'),
    (format('description = %L', repeat('x', 2001)), 'games_description_has_at_most_2000_characters', 'a description is not too long'),
    ($$description = ''$$, 'nothing', 'and may be nothing'),
    ($$visibility = 'secret'$$, 'games_visibility_is_known', 'a visibility is known'),
    ($$visibility = 'public'$$, 'nothing', 'a public game may have an owner'),
    ($$visibility = 'private', owner_user_id = NULL$$, 'games_private_has_an_owner', 'a private one has one'),
    (format('game_name = %L', U&'\200b\2800'), 'games_name_is_clean', 'a name can be seen'),
    ('min_players = 1', 'games_min_players_is_2_or_more', 'nobody plays alone'),
    ('max_players = 65, min_players = 2', 'games_max_players_is_at_most_64', 'there are at most 64 seats'),
    ('min_players = 5', 'games_min_players_not_above_max', 'so many must have a seat'),
    ('min_players = 64, max_players = 64', 'nothing', 'all of 64 may be needed'),
    ($$target_engine_version = '9.9.9'$$, 'games_target_engine_version_fkey', 'an engine version is there')
  ) AS t(v, c, d);
SELECT is(pg_temp.violated(format('INSERT INTO backend.game_history (game_id, action, to_status, actor_type) VALUES (%L, ''x'', ''draft'', %L)', :'game', v)), c, d)
  FROM (VALUES ('user', 'nothing', 'a person acts'), ('sweeper', 'nothing', 'or the sweeper'), ('ghost', 'game_history_actor_type_is_known', 'but no ghost')) AS t(v, c, d);
SELECT is(
    pg_temp.violated(pg_temp.fill('INSERT INTO backend.memberships (game_id, user_id, race_name, race_name_canonical, ended_at) VALUES ' || v, :'ann', :'bob', :'game')), c, d)
  FROM (VALUES
    ($$(:game, :ann, 'Zorg', 'zorg', NULL)$$, 'nothing', 'a seat'),
    ($$(:game, :ann, 'Borg', 'borg', NULL)$$, 'memberships_one_per_person_and_game', 'a person has one in a game'),
    ($$(:game, :bob, 'Zorg', 'zorg', NULL)$$, 'memberships_one_race_name_per_game', 'and a race name too'),
    ($$(:game, :bob, 'Borg', 'borg', now())$$, 'memberships_ended_says_when', 'a seat that is taken has no end'),
    ($$(:game, gen_random_uuid(), 'Borg', 'borg', NULL)$$, 'memberships_user_id_fkey', 'a member is somebody')
  ) AS t(v, c, d);
SELECT is(pg_temp.violated(format('UPDATE backend.memberships SET status = ''removed'' WHERE game_id = %L', :'game')), 'memberships_ended_says_when', 'one that is given up says when');
SELECT lives_ok(format('UPDATE backend.memberships SET status = ''removed'', ended_at = backend.now() WHERE game_id = %L', :'game'), 'a seat is given up');
SELECT is(
    pg_temp.violated(pg_temp.fill($$INSERT INTO backend.memberships (game_id, user_id, race_name, race_name_canonical) VALUES (:game, :bob, 'Zorg', 'zorg')$$, :'ann', :'bob', :'game')),
    'nothing', 'and its race name with it');
SELECT is(pg_temp.violated(format('UPDATE backend.memberships SET %s WHERE game_id = %L AND user_id = %L', v, :'game', :'ann')), c, d)
  FROM (VALUES
    ($$ended_by = 'ghost'$$, 'memberships_ended_by_is_known', 'a seat is ended by somebody'),
    ('banished_at = now()', 'memberships_banished_was_wanted', 'nobody is banished without cause')) AS t(v, c, d);
SELECT is(pg_temp.violated(format('UPDATE backend.memberships SET ended_by = ''owner'' WHERE game_id = %L AND user_id = %L', :'game', :'bob')),
    'memberships_active_was_ended_by_nobody', 'nor is one ended that is taken');
SELECT is(pg_temp.violated(format('INSERT INTO backend.applications (game_id, applicant_user_id, race_name, decided_at) VALUES (%L, %L, ''Zorg'', %s)', :'game', :'ann', v)), c, d)
  FROM (VALUES
    ('now()', 'applications_decided_says_when', 'what is not decided was not decided at any time'),
    ('NULL', 'nothing', 'an application'),
    ('NULL', 'applications_one_live_per_person_and_game', 'one at a time')) AS t(v, c, d);
SELECT is(pg_temp.violated(format('INSERT INTO backend.invite_attempts (user_id, failures, expires_at) VALUES (%L, %s, now())', :'ann', v)), c, d)
  FROM (VALUES ('0', 'invite_attempts_failures_are_positive', 'what did not fail is not counted'), ('1', 'nothing', 'what did is')) AS t(v, c, d);
SELECT is(
    pg_temp.violated(pg_temp.fill(replace('INSERT INTO backend.invites (game_id, inviter_user_id, invited_user_id, code_hash, expires_at) VALUES ' || v, ':32',
                                          $$decode(repeat('01', 32), 'hex')$$), :'ann', :'bob', :'game')), c, d)
  FROM (VALUES
    ($$(:game, :ann, :bob, NULL, now())$$, 'nothing', 'an invite may be for a person'),
    ($$(:game, :ann, NULL, :32, now())$$, 'nothing', 'or by code'),
    ($$(:game, NULL, NULL, :32, now())$$, 'invites_code_is_unique', 'a code opens one invite'),
    ($$(:game, :ann, :bob, :32, now())$$, 'invites_for_a_person_or_by_code', 'not both'),
    ($$(:game, :ann, NULL, NULL, now())$$, 'invites_for_a_person_or_by_code', 'nor neither'),
    ($$(:game, :ann, NULL, '\x01', now())$$, 'invites_code_hash_has_32_bytes', 'a hash has 32 bytes'),
    ($$(:game, NULL, :bob, NULL, now())$$, 'invites_one_live_per_person_and_game', 'a person has one that is open, whoever invites'),
    ($$(:game, NULL, :ann, NULL, now())$$, 'nothing', 'an administrator invites too')
  ) AS t(v, c, d);
SELECT is(pg_temp.violated(format('UPDATE backend.invites SET %s WHERE game_id = %L', v, :'game')), c, d)
  FROM (VALUES
    ($$status = 'redeemed'$$, 'invites_redeemed_says_by_whom', 'an invite that was redeemed says by whom'),
    (format('redeemed_by_user_id = %L', :'bob'), 'invites_redeemed_says_by_whom', 'one that was not does not')) AS t(v, c, d);

SELECT volatility_is('backend', f, 'volatile', format('%s() is VOLATILE', f)) FROM unnest(ARRAY['tg_games__fold_name', 'tg_memberships__note_end']) AS f;

SELECT * FROM finish();
ROLLBACK;
