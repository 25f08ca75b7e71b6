-- Test galaxy-backend:backend/race_name_rules

BEGIN;
SELECT plan(95);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes.
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('tg_memberships__store_canonical', 'volatile'), ('race_name_game_ids', 'stable'), ('race_name_tier', 'stable'), ('race_name_is_expired', 'stable'), ('race_name_is_taken', 'stable'),
               ('race_name_expire', 'volatile'), ('race_name_hold', 'volatile'), ('race_name_reserve', 'volatile'), ('race_name_release_unused', 'volatile'),
               ('race_names_settle', 'volatile'), ('race_names_expire', 'volatile'), ('race_name_json', 'stable'), ('race_names_recompute', 'volatile')) AS t(f, v);
SELECT has_view('backend', v::name, format('there is %s', v)) FROM unnest(ARRAY['invariants_race_names', 'race_name_problems']) AS v;

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.race_name_reserve(gen_random_uuid(), 'Zorg')$$, '42501', NULL, 'backend_api takes no name past its door');
SELECT throws_ok('SELECT FROM backend.race_name_problems', '42501', NULL, 'nor sees who holds one');
SET LOCAL ROLE backend_worker;
SELECT throws_ok('SELECT backend.race_names_expire(1)', '42501', NULL, 'nor does backend_worker let one go');
RESET ROLE;

SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid \gset
SELECT pg_temp.set_limit(u::uuid, l, 50) FROM unnest(ARRAY[:'ann', :'bob', :'cid']) AS u, unnest(ARRAY['max_owned_private_games', 'max_active_memberships']) AS l \g /dev/null
CREATE FUNCTION pg_temp.tier(p_race_name text) RETURNS text
LANGUAGE sql
RETURN (SELECT r.tier FROM backend.race_names AS r WHERE r.canonical = backend.race_name_canonical(p_race_name) ORDER BY r.tier <> 'released' DESC, r.race_name_id DESC LIMIT 1);
CREATE FUNCTION pg_temp.played(p_owner uuid, p_name text, p_other uuid, p_other_name text) RETURNS uuid
LANGUAGE plpgsql
AS $$
DECLARE
    v_game_id uuid := pg_temp.game(p_owner, jsonb_build_object('race_name', p_name));
BEGIN
    PERFORM pg_temp.join(v_game_id, p_other, p_other_name);
    PERFORM pg_temp.bring(v_game_id, 'running');
    RETURN v_game_id;
END;
$$;
CREATE FUNCTION pg_temp.over(p_game_id uuid, p_grown text[] DEFAULT '{}') RETURNS text
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE backend.memberships SET max_planets = 2, max_population = 200 WHERE game_id = p_game_id AND race_name = ANY (p_grown);
    RETURN (SELECT (backend.game_transition(g, 'finish', 'job', '1')).status FROM backend.game_lock(p_game_id) AS g);
END;
$$;
CREATE FUNCTION pg_temp.told(p_kind text) RETURNS text[]
LANGUAGE sql
RETURN (SELECT coalesce(array_agg(n.payload ->> 'race_name' ORDER BY n.notification_id), '{}') FROM backend.notifications AS n WHERE n.kind = p_kind);

-- Taking a name.
CREATE FUNCTION pg_temp.undoable(p_sql text) RETURNS text LANGUAGE sql RETURN pg_temp.undone(p_sql, 'SELECT string_agg(race_name, '', '') FROM backend.race_names');
SELECT is(pg_temp.undoable(format('SELECT backend.race_name_reserve(%L, '' Zorg '')', :'ann')), 'Zorg', 'a name is taken as it is kept');
SELECT is(pg_temp.undoable(format('SELECT backend.race_name_reserve(%L, %L)', :'ann', n)), 'GX422 invalid_name', d)
  FROM (VALUES ('x', 'what is no name is not taken'), ('Galaxy', 'nor what is reserved')) AS t(n, d);
SELECT pg_temp.name(:'ann', 'Zorg', 'reservation') AS zorg \gset
SELECT is(backend.race_name_reserve(:'ann', 'Z0RG'), 'Z0RG', 'its holder may take it again, written otherwise');
SELECT is((SELECT count(*) FROM backend.race_names), 1::bigint, 'it is still one claim');
SELECT is(pg_temp.undoable(format('SELECT backend.race_name_reserve(%L, %L)', :'bob', n)), 'GX422 name_taken', format('nobody else takes %L', n))
  FROM unnest(ARRAY['Zorg', 'z-o-r-g', 'Z0rg', 'ＺＯＲＧ', 'zorɡ', '𝐙𝐨𝐫𝐠']) AS n;
SELECT is(pg_temp.refused(format('SELECT backend.race_name_reserve(%L, ''Zorg'')', :'bob'))::text ~ :'ann', false, 'a refusal never says by whom it is held');
SELECT is((backend.race_name_hold('zorg')).race_name_id, :'zorg', 'whoever holds a name sees how it is held');
SELECT is((backend.race_name_hold('borg')).race_name_id, NULL, 'also that it is not');
SELECT lives_ok(format('SELECT backend.race_name_release_unused(%L, ''zorg'')', :'bob'), 'nobody lets go what is another''s');
SELECT is(pg_temp.tier('Zorg'), 'reservation', 'which stays');
SELECT lives_ok(format('SELECT backend.race_name_release_unused(%L, ''zorg'')', :'ann'), 'a name that is in no game is let go');
SELECT is(pg_temp.tier('Zorg'), 'released', 'by its holder');
SELECT is(backend.race_name_reserve(:'bob', 'Zorg'), 'Zorg', 'and is free');
DELETE FROM backend.race_names;

-- Seats: their form is stored as that of the name is.
SELECT pg_temp.played(:'ann', 'Mars', :'bob', 'Venus') AS one, pg_temp.played(:'ann', 'RNARS', :'cid', 'Pluto') AS two \gset
SELECT set_eq(
    'SELECT race_name, race_name_canonical FROM backend.memberships', $$VALUES ('Mars', 'rnars'), ('RNARS', 'rnars'), ('Venus', 'venus'), ('Pluto', 'pluto')$$,
    'a seat has the form of its name');
UPDATE backend.memberships SET race_name_canonical = 'other' WHERE race_name = 'Venus';
SELECT is((SELECT race_name_canonical FROM backend.memberships WHERE race_name = 'Venus'), 'venus', 'and no other');
SELECT is(backend.race_name_game_ids(:'ann', 'rnars'), ARRAY[:'two', :'one']::uuid[], 'a name is used where its holder sits under it, however it is written');
SELECT is(backend.race_name_game_ids(:'bob', 'rnars'), '{}', 'by nobody else');

-- The end of a game.
SELECT is(pg_temp.over(:'one', '{Mars,Venus}'), 'finished', 'a game ends');
SELECT is(ARRAY[pg_temp.tier('Mars'), pg_temp.tier('Venus'), pg_temp.tier('Pluto')], ARRAY['pending_registration', 'pending_registration', 'reservation'], 'who grew has earned their name, also one that is in use elsewhere');
SELECT is(pg_temp.told('lobby.race_name.pending'), ARRAY['Mars', 'Venus'], 'and is told');
SELECT is(backend.race_name_game_ids(:'ann', 'rnars'), ARRAY[:'two']::uuid[], 'a game that has ended uses no name');
SELECT is(
    pg_temp.undone(format('SELECT pg_temp.over(%L, ''{RNARS}'')', :'two'), 'SELECT string_agg(race_name || '' '' || tier, '', '' ORDER BY race_name) FROM backend.race_names'),
    'Mars pending_registration, Pluto released, Venus pending_registration', 'what was earned is not earned again');
SELECT is(
    pg_temp.undone(format('SELECT pg_temp.over(%L, ''{RNARS}'')', :'two'), 'SELECT array_to_string(pg_temp.told(''lobby.race_name.pending''), '', '')'), 'Mars, Venus', 'nor said twice');
SELECT is(
    pg_temp.undone(format('SELECT backend.race_names_settle(%L, false)', :'two'), 'SELECT pg_temp.tier(''Pluto'')'), 'reservation', 'a name is not let go while its game goes on');

-- Time.
SELECT is((SELECT array_agg(DISTINCT backend.race_name_tier(r) ORDER BY backend.race_name_tier(r)) FROM backend.race_names AS r WHERE r.tier = 'pending_registration'), ARRAY['pending_registration'], 'there is time');
SELECT is(backend.race_names_expire(10), 0, 'nothing has run out of it');
SELECT pg_temp.advance('30 days') \g /dev/null
SELECT pg_temp.advance('-1 microsecond') \g /dev/null
SELECT is(backend.race_names_expire(10), 0, 'nor a microsecond before');
SELECT is((SELECT count(*) FROM backend.race_names AS r WHERE backend.race_name_is_expired(r)), 0::bigint, 'which one can see');
SELECT is(pg_temp.undoable(format('SELECT backend.race_name_reserve(%L, ''Venus'')', :'cid')), 'GX422 name_taken', 'and try');
SELECT pg_temp.advance('1 microsecond') \g /dev/null
SELECT is((SELECT array_agg(backend.race_name_tier(r) ORDER BY r.race_name) FROM backend.race_names AS r WHERE r.tier = 'pending_registration'), ARRAY['reservation', 'released'], 'it is over, whether or not somebody has come by: what is in use stays in use');
SELECT is((SELECT count(*) FROM backend.race_names AS r WHERE backend.race_name_is_expired(r)), 2::bigint, 'for both');
SELECT is(
    pg_temp.undone(format('SELECT backend.race_name_reserve(%L, ''Venus'')', :'cid'), 'SELECT string_agg(tier || coalesce('' '' || (user_id = ' || quote_literal(:'cid') || ')::text, ''''), '', '' ORDER BY race_name_id) FROM backend.race_names WHERE canonical = ''venus'''),
    'released false, reservation true', 'somebody else takes the name at once');
SELECT is(
    pg_temp.undone(format('SELECT backend.race_name_reserve(%L, ''Venus'')', :'cid'), 'SELECT array_to_string(pg_temp.told(''lobby.race_name.expired''), '', '')'), 'Venus', 'and who had it is told');
SELECT is(pg_temp.undoable(format('SELECT backend.race_name_reserve(%L, ''Mars'')', :'cid')), 'GX422 name_taken', 'not one that is in use');
SELECT is(
    pg_temp.undone(format('SELECT pg_temp.over(%L, ''{RNARS}'')', :'two'), 'SELECT tier || '' '' || (expires_at > backend.now())::text FROM backend.race_names WHERE race_name = ''Mars'''),
    'pending_registration true', 'a game that ends then earns it anew');
SELECT is(backend.race_names_expire(1), 1, 'one at a time');
SELECT is(backend.race_names_expire(10), 1, 'or all');
SELECT is(backend.race_names_expire(10), 0, 'once');
SELECT is(ARRAY[pg_temp.tier('Mars'), pg_temp.tier('Venus')], ARRAY['reservation', 'released'], 'what is in use is held on, the other is free');
SELECT results_eq(
    $$SELECT user_id, payload FROM backend.notifications WHERE kind = 'lobby.race_name.expired' ORDER BY payload ->> 'race_name'$$,
    format($$VALUES (%L::uuid, '{"race_name": "Mars"}'::jsonb), (%L, '{"race_name": "Venus"}')$$, :'ann', :'bob'), 'both are told');
SELECT is(backend.race_name_expire(:'zorg'), false, 'what is not there has no time');
SELECT is(backend.race_name_expire(race_name_id), false, format('nor has what is %s', tier)) FROM backend.race_names WHERE tier <> 'pending_registration' ORDER BY race_name;
SELECT is((SELECT backend.race_name_is_expired(r) FROM backend.race_names AS r WHERE race_name = 'Venus'), true, 'what was let go for that still says so');
SELECT is(pg_temp.over(:'two', '{Pluto}'), 'finished', 'the other game ends');
SELECT is(ARRAY[pg_temp.tier('Mars'), pg_temp.tier('Pluto')], ARRAY['released', 'pending_registration'], 'and with it what was only in use');
SELECT is((SELECT backend.race_name_is_expired(r) FROM backend.race_names AS r WHERE race_name = 'Mars'), NULL, 'which was not for the time');

-- For its holder.
SELECT is(
    (SELECT backend.race_name_json(r) FROM backend.race_names AS r WHERE race_name = 'Pluto'),
    (SELECT jsonb_build_object('race_name', 'Pluto', 'status', 'pending_registration', 'game_ids', '[]'::jsonb, 'expires_at', backend.ts(expires_at), 'registered_at', NULL)
       FROM backend.race_names WHERE race_name = 'Pluto'), 'a name is shown so');

-- Invariants.
SELECT is_empty('SELECT * FROM backend.invariants', 'nothing is wrong after all this');
SELECT pg_temp.played(:'ann', 'Thetas', :'bob', 'Iotas') AS broken \gset
SELECT is(
    pg_temp.undone(format('SELECT pg_temp.plant(%L)', v), 'SELECT string_agg(invariant || '' '' || details, '', '') FROM backend.invariants_race_names'), e, d)
  FROM (VALUES
    ('UPDATE backend.memberships SET status = ''removed'', ended_at = now() WHERE race_name = ''Thetas''', 'reservation_without_a_game' || ' Thetas', 'a name that is held for no game is listed'),
    ('UPDATE backend.race_names SET tier = ''released'', released_at = now() WHERE race_name = ''Iotas''', 'seat_under_a_name_that_is_not_held' || ' Iotas', 'and a seat under a name that is not held'),
    ('UPDATE backend.race_names SET data_version = ''old'' WHERE race_name = ''Iotas''', 'name_by_other_data' || ' old', 'and a name that other data were asked about'),
    ('UPDATE backend.race_names SET data_version = ''old'' WHERE tier = ''released''', 'null', 'but not one that is history')
  ) AS t(v, e, d);
-- Other data. Each of these is as if a newer Unicode said so.
CREATE FUNCTION pg_temp.if(p_data text) RETURNS text
LANGUAGE sql
RETURN pg_temp.undone(
    p_data || '; UPDATE backend.unicode_version SET data_version = ''newer''',
    'SELECT string_agg(problem || '' '' || race_name || coalesce('' '' || other_race_name, ''''), '', '' ORDER BY problem, race_name) FROM backend.race_name_problems');
SELECT is(pg_temp.if('SELECT 1'), 'null', 'by the same data nothing is wrong');
SELECT is(
    pg_temp.if('INSERT INTO backend.confusables (codepoint, skeleton) VALUES (ascii(''h''), ''o'')'), 'null', 'other looks do no harm where nobody is like another');
SELECT pg_temp.name(:'cid', 'Iolas', 'registered') \g /dev/null
SELECT is(
    pg_temp.if('INSERT INTO backend.confusables (codepoint, skeleton) VALUES (ascii(''t''), ''l'')'), 'collision Iotas Iolas', 'two names that become one are listed');
SELECT is(
    pg_temp.if($$INSERT INTO backend.confusables (codepoint, skeleton)
                 SELECT ascii(c), '.' FROM unnest(string_to_array('iolas', NULL)) AS c$$),
    'empty Iolas', 'and one of which nothing is left');
SELECT is(
    pg_temp.if('UPDATE backend.name_characters SET kind = ''mark'' WHERE first_codepoint = ascii(''A'')'), 'invalid_name Iolas, invalid_name Iotas, invalid_name Pluto, invalid_name Thetas', 'and what is no name any more');
SELECT is(
    pg_temp.if('INSERT INTO backend.reserved_names (race_name) VALUES (''p1uto'')'), 'name_reserved Pluto', 'and what is reserved then');
SELECT pg_temp.join(pg_temp.game(:'ann'), :'ann', 'THETA5') \g /dev/null
SELECT is(pg_temp.if('INSERT INTO backend.confusables (codepoint, skeleton) VALUES (ascii(''5''), ''s'')'), 'collision Thetas THETA5', 'a person''s own names too');
SELECT pg_temp.join(pg_temp.game(:'ann'), :'ann', 'Theta-s') \g /dev/null
SELECT is(
    pg_temp.undone('INSERT INTO backend.case_foldings (codepoint, folding) VALUES (ascii(''-''), ''x'')', 'SELECT string_agg(problem || '' '' || race_name, '', '') FROM backend.race_name_problems'),
    'seat_under_another_name Theta-s', 'and a seat that its holder''s name would not cover any more');

-- All made anew.
CREATE FUNCTION pg_temp.anew(p_data text, p_ask text) RETURNS text
LANGUAGE sql
RETURN pg_temp.undone(p_data || '; UPDATE backend.unicode_version SET data_version = ''newer''; SELECT backend.race_names_recompute()', p_ask);
SELECT is(backend.race_names_recompute(), 0, 'by the same data nothing is to be done');
SELECT is(
    pg_temp.anew('INSERT INTO backend.confusables (codepoint, skeleton) VALUES (ascii(''h''), ''o'')',
                 $$SELECT string_agg(DISTINCT r.canonical || ' ' || r.data_version, ', ') FROM backend.race_names AS r WHERE r.race_name = 'Thetas'$$),
    'toetas newer', 'by other data a name has another form');
SELECT is(
    pg_temp.anew('INSERT INTO backend.confusables (codepoint, skeleton) VALUES (ascii(''h''), ''o'')',
                 $$SELECT string_agg(DISTINCT m.race_name_canonical, ', ') FROM backend.memberships AS m WHERE m.race_name IN ('Thetas', 'Theta-s')$$),
    'toetas', 'and so have the seats under it');
SELECT is(
    pg_temp.anew('INSERT INTO backend.confusables (codepoint, skeleton) VALUES (ascii(''h''), ''o'')',
                 'SELECT string_agg(invariant, '', '') FROM backend.invariants'), 'null', 'nothing is wrong then');
SELECT is(
    pg_temp.anew('INSERT INTO backend.confusables (codepoint, skeleton) VALUES (ascii(''d''), ''o'')',
                 $$SELECT DISTINCT r.canonical FROM backend.reserved_names AS r WHERE r.race_name = 'admin'$$), 'aornln', 'reserved names likewise');
INSERT INTO backend.confusables (codepoint, skeleton) VALUES (ascii('x'), 'w');
SELECT pg_temp.name(:'cid', n, 'registered') FROM unnest(ARRAY['qq', 'xx']) AS n \g /dev/null
SELECT is(
    pg_temp.anew('DELETE FROM backend.confusables WHERE codepoint = ascii(''x''); INSERT INTO backend.confusables (codepoint, skeleton) VALUES (ascii(''q''), ''w'')',
                 $$SELECT string_agg(r.race_name || ' ' || r.canonical, ', ' ORDER BY r.race_name) FROM backend.race_names AS r WHERE r.race_name IN ('qq', 'xx')$$),
    'qq ww, xx xx', 'also the one that was another''s until now');
SELECT throws_ok($$INSERT INTO backend.confusables (codepoint, skeleton) VALUES (ascii('t'), 'l'); UPDATE backend.unicode_version SET data_version = 'newer'; SELECT backend.race_names_recompute()$$,
    '23505', NULL, 'two that became one are refused');
SELECT throws_ok($$INSERT INTO backend.confusables (codepoint, skeleton) VALUES (ascii('q'), '.'); UPDATE backend.unicode_version SET data_version = 'newer'; SELECT backend.race_names_recompute()$$,
    '23514', NULL, 'and one of which nothing is left');
SELECT throws_ok($$INSERT INTO backend.case_foldings (codepoint, folding) VALUES (ascii('-'), 'x'); UPDATE backend.unicode_version SET data_version = 'newer'; SELECT backend.race_names_recompute()$$,
    '23505', NULL, 'and a seat under a name that is not held');

SELECT * FROM finish();
ROLLBACK;
