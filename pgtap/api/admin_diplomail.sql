-- Test galaxy-backend:api/admin_diplomail

BEGIN;
SELECT plan(47);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], volatility text);
INSERT INTO functions VALUES
    ('admin_diplomail_send', ARRAY['text', 'uuid', 'jsonb'], 'volatile'), ('admin_diplomail_list', ARRAY['text', 'uuid', 'integer', 'text'], 'stable'),
    ('admin_diplomail_broadcast', ARRAY['text', 'jsonb'], 'volatile'), ('admin_diplomail_purge', ARRAY['text', 'jsonb'], 'volatile');
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, p::name[], format('%s may execute %s(): %s', r, name, p <> '{}'))
  FROM functions, (VALUES ('backend_api', '{EXECUTE}'), ('backend_worker', '{}'), ('backend_push', '{}')) AS t(r, p);

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('a', 53)) ON CONFLICT DO NOTHING;
SELECT pg_temp.person('ann', 'permanent') AS ann, pg_temp.person('bob') AS bob \gset
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas"}') AS game, pg_temp.game(:'ann') AS other \gset
SELECT pg_temp.join(:'game', :'bob', 'Betas') \g /dev/null
SET LOCAL ROLE backend_api;

-- Nobody else may.
SELECT throws_ok(format(q, 'nobody'), 'GX401', 'unauthorized', format('nobody may: %s', q))
  FROM (VALUES ('SELECT api.admin_diplomail_send(%L, gen_random_uuid(), ''{"body": "x", "recipients": "all"}'')'), ('SELECT api.admin_diplomail_list(%L, gen_random_uuid(), 1, NULL)'),
               ('SELECT api.admin_diplomail_broadcast(%L, ''{"body": "x", "game_ids": "all_running"}'')'), ('SELECT api.admin_diplomail_purge(%L, ''{"finished_more_than_days": 0}'')')) AS t(q);

-- To a game.
SELECT throws_ok($$SELECT api.admin_diplomail_send('root', gen_random_uuid(), '{"body": "x", "recipients": "all"}')$$, 'GX404', 'game_not_found', 'a game is needed');
SELECT throws_ok($$SELECT api.admin_diplomail_send('root', gen_random_uuid(), '{"body": " ", "recipients": "all"}')$$, 'GX400', 'invalid_request', 'and something to be read');
SELECT throws_ok(format($$SELECT api.admin_diplomail_send('root', %L, '{"body": "x", "recipients": ["Zorg"]}')$$, :'game'), 'GX422', 'recipient_not_found', 'by somebody');
SELECT is(pg_temp.replied(format($$SELECT api.admin_diplomail_send('root', %L, '{"body": "one", "recipients": ["Betas"]}')$$, :'game')), '201', 'a member is written to');
SELECT is((api.admin_diplomail_send('root', :'game', '{"body": "two", "subject": "All", "recipients": "all"}')).body::jsonb - 'message_id' - 'sent_at',
    jsonb_build_object('game_id', :'game', 'kind', 'admin', 'sender_race_name', NULL, 'recipients', ARRAY['Alphas', 'Betas'], 'subject', 'All', 'body', 'two', 'language', 'en', 'translation', NULL, 'read_at', NULL),
    'all are, the owner too');
SELECT is(jsonb_path_query_array(api.diplomail_inbox_list(u::uuid, :'game', 10, NULL)::jsonb, '$.items[*].body'), b, 'they read it')
  FROM (VALUES (:'ann', '["two"]'::jsonb), (:'bob', '["two", "one"]')) AS t(u, b);

-- Lists.
SELECT is(jsonb_path_query_array(api.admin_diplomail_list('root', :'game', 10, NULL)::jsonb, '$.items[*].body'), '["two", "one"]', 'an administrator reads all of it');
SELECT api.admin_diplomail_list('root', :'game', 1, NULL)::jsonb ->> 'next_cursor' AS cursor \gset
SELECT is(jsonb_path_query_array(api.admin_diplomail_list('root', :'game', 1, :'cursor')::jsonb, '$.items[*].body'), '["one"]', 'in pages');
SELECT throws_ok(format($$SELECT api.admin_diplomail_list('root', %L, 1, %L)$$, :'other', :'cursor'), 'GX400', 'invalid_cursor', 'each list has its own');
SELECT throws_ok($$SELECT api.admin_diplomail_list('root', gen_random_uuid(), 1, NULL)$$, 'GX404', 'game_not_found', 'a game is needed to look at');

-- Broadcasts.
SELECT throws_ok(format($$SELECT api.admin_diplomail_broadcast('root', '{"body": "x", "game_ids": ["%s", "%s"]}')$$, :'game', gen_random_uuid()), 'GX404', 'game_not_found', 'every one of them is a game');
SELECT throws_ok($$SELECT api.admin_diplomail_broadcast('root', '{"body": " ", "game_ids": "all_running"}')$$, 'GX400', 'invalid_request', 'here too there is something to be read');
SELECT is(api.admin_diplomail_broadcast('root', format('{"body": "three", "game_ids": ["%s", "%s", "%s"]}', :'game', :'other', :'game')::jsonb)::jsonb, '{"messages": 1}', 'one message for each game with members');
SELECT is(api.admin_diplomail_broadcast('root', '{"body": "four", "game_ids": "all_running"}')::jsonb, '{"messages": 0}', 'where none runs there is none');
RESET ROLE;
SELECT is((SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE queue_name = 'diplomail'), 1::bigint, 'a job delivers it');
SELECT results_eq('SELECT game_ids, written_count, subject, body FROM backend.diplomail_broadcasts', format($$VALUES (ARRAY[%L]::uuid[], 0, NULL::text, 'three')$$, :'game'), 'which is told the game that has members, and nothing else');
SELECT worker.diplomail_broadcast() \g /dev/null

-- Purges.
SELECT pg_temp.bring(:'game', 'cancelled') \g /dev/null
SELECT pg_temp.advance('30 days') \g /dev/null
SELECT is(api.admin_diplomail_purge('root', '{"finished_more_than_days": 30}')::jsonb, '{"deleted": 0}', 'thirty days are not more than thirty');
SELECT pg_temp.advance('1 microsecond') \g /dev/null
INSERT INTO backend.diplomail_messages (game_id, kind, recipients, language, body) SELECT :'game', 'system', '{X}', 'en', 'x' FROM generate_series(1, 2000);
SELECT is(api.admin_diplomail_purge('root', '{"finished_more_than_days": 30}')::jsonb, format('{"deleted": %s}', n)::jsonb, 'a moment more is, so many at once')
  FROM unnest(ARRAY[2000, 4]) AS n;
SELECT is(
    (SELECT array_agg(action || ' ' || object_type ORDER BY audit_id) FROM backend.audit_log WHERE action ~ 'diplomail'),
    ARRAY['admin_diplomail_send game', 'admin_diplomail_send game', 'admin_diplomail_broadcast diplomail', 'admin_diplomail_broadcast diplomail', 'admin_diplomail_purge diplomail', 'admin_diplomail_purge diplomail', 'admin_diplomail_purge diplomail'],
    'all of it is written down');

-- To all games that run.
SELECT pg_temp.game(:'bob', '{"race_name": "Others"}') AS runs \gset
SELECT pg_temp.join(:'runs', :'ann', 'Zorgs'), pg_temp.bring(:'runs', 'running') \g /dev/null
SELECT is(api.admin_diplomail_broadcast('root', '{"body": "five", "game_ids": "all_running"}')::jsonb, '{"messages": 1}', 'all games that run are written to');
SELECT is((SELECT game_ids FROM backend.diplomail_broadcasts WHERE body = 'five'), ARRAY[:'runs']::uuid[], 'and no other');

SELECT * FROM finish();
ROLLBACK;
