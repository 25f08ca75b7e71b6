-- Test galaxy-backend:api/users

BEGIN;
SELECT plan(166);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], returns text, volatility text);
INSERT INTO functions VALUES
    ('user_list', ARRAY['text', 'integer', 'text', 'text', 'text[]', 'text', 'text']::name[], 'text', 'stable'),
    ('user_get', ARRAY['text', 'uuid']::name[], 'text', 'stable'),
    ('user_entitlement_grant', ARRAY['text', 'uuid', 'jsonb']::name[], 'api.reply', 'volatile'),
    ('user_sanction_apply', ARRAY['text', 'uuid', 'jsonb']::name[], 'api.reply', 'volatile'),
    ('user_sanction_lift', ARRAY['text', 'uuid', 'text', 'jsonb']::name[], 'text', 'volatile'),
    ('user_limit_apply', ARRAY['text', 'uuid', 'jsonb']::name[], 'api.reply', 'volatile'),
    ('user_limit_clear', ARRAY['text', 'uuid', 'text', 'jsonb']::name[], 'text', 'volatile'),
    ('user_session_list', ARRAY['text', 'uuid', 'integer', 'text']::name[], 'text', 'stable'),
    ('user_session_revoke_all', ARRAY['text', 'uuid', 'jsonb']::name[], 'text', 'volatile'),
    ('user_soft_delete', ARRAY['text', 'uuid', 'jsonb']::name[], 'text', 'volatile');
SELECT function_returns('api', name, arguments, returns, format('%s() answers %s', name, returns)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;
INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT pg_temp.person('ann') AS ann, pg_temp.person('bob') AS bob, pg_temp.person('cid') AS cid, gen_random_uuid() AS nobody \gset
UPDATE backend.accounts SET display_name = E'Gr\u00f6\u00dfe' WHERE user_id = :'ann';

-- Grants.
SET LOCAL ROLE backend_api;
SELECT (r).status, (r).body, (r).location FROM (SELECT api.user_entitlement_grant('root', :'ann', '{"tier": "monthly", "reason_code": "purchase"}') AS r OFFSET 0) AS t \gset
RESET ROLE;
SELECT is(:'status' || :'location', '201/api/v1/admin/users/' || :'ann', 'a tier is granted, and found with the person');
SELECT is(:'body'::jsonb - 'entitlement_record_id',
    jsonb_build_object('tier', 'monthly', 'source', 'admin', 'actor', 'root', 'reason_code', 'purchase', 'starts_at', backend.ts(backend.now()),
                       'ends_at', backend.ts(backend.now() + interval '720 hours'), 'created_at', backend.ts(backend.now())), 'from now on, for its duration');
SELECT is(api.my_account_get(:'ann')::jsonb -> 'entitlement' ->> 'tier', 'monthly', 'it is in force at once');
SELECT is(backend.account_limit(:'ann', 'max_owned_private_games'), 3, 'with its numbers');
SELECT is((api.user_entitlement_grant('root', :'ann', '{"tier": "permanent", "reason_code": "gift"}')).body::jsonb ->> 'ends_at', NULL, 'one without a duration has no end');
SELECT is((api.user_entitlement_grant('root', :'ann', jsonb_build_object('tier', 'yearly', 'reason_code', 'gift', 'starts_at', backend.ts(backend.now() + interval '24 hours')))).body::jsonb ->> 'ends_at',
    backend.ts(backend.now() + 366 * interval '24 hours'), 'one that begins later ends later');
SELECT is(api.my_account_get(:'ann')::jsonb -> 'entitlement' ->> 'tier', 'permanent', 'and is not in force yet');
SELECT pg_temp.name(:'ann', 'Name ' || i, 'registered') FROM generate_series(1, 3) AS i \g /dev/null
SELECT is((api.user_entitlement_grant('root', :'ann', '{"tier": "free", "reason_code": "refund"}')).status, 201, 'what was given is taken back');
SELECT is(api.my_account_get(:'ann')::jsonb -> 'entitlement' ->> 'tier', 'free', 'at once');
SELECT is((SELECT count(*) FROM backend.race_names WHERE user_id = :'ann' AND tier <> 'released'), 3::bigint, 'but no race name that was registered');
SELECT is(pg_temp.refused(format('SELECT api.user_entitlement_grant(''root'', %L, %L)', :'ann', b)) ->> 'hint', h, d)
  FROM (VALUES
    ('{"tier": "gold", "reason_code": "x"}', '[{"path": "tier", "problem": "is not a tier"}]', 'a tier is one that there is'),
    (jsonb_build_object('tier', 'monthly', 'reason_code', 'x', 'ends_at', backend.ts(backend.now()))::text, '[{"path": "ends_at", "problem": "is not in the future"}]', 'an end is to come'),
    (jsonb_build_object('tier', 'monthly', 'reason_code', 'x', 'starts_at', backend.ts(backend.now() + interval '1 day'), 'ends_at', backend.ts(backend.now() + interval '1 day'))::text,
        '[{"path": "ends_at", "problem": "is not after starts_at"}]', 'and comes after the begin'),
    (jsonb_build_object('tier', 'monthly', 'reason_code', 'x', 'starts_at', backend.ts(backend.now() - interval '720 hours'))::text,
        '[{"path": "starts_at", "problem": "is so long ago that it would be over"}]', 'also of a grant that ends by itself')
  ) AS t(b, h, d);

-- Sanctions.
INSERT INTO backend.device_sessions (user_id, kind, client_public_key) SELECT u::uuid, 'key', sha256(gen_random_uuid()::text::bytea) FROM unnest(ARRAY[:'bob', :'cid', :'cid']) AS u;
SELECT (r).body FROM (SELECT api.user_sanction_apply('root', :'bob', '{"code": "profile_update_block", "reason": "Rude", "expires_at": "2100-01-01T00:00:00Z"}') AS r OFFSET 0) AS t \gset
SELECT is(:'body'::jsonb - 'sanction_record_id',
    jsonb_build_object('code', 'profile_update_block', 'action', 'apply', 'reason', 'Rude', 'actor', 'root', 'expires_at', '2100-01-01T00:00:00.000000Z', 'created_at', backend.ts(backend.now())),
    'a sanction is put in force');
SELECT throws_ok(format($$SELECT api.my_profile_update(%L, '{"display_name": "x"}')$$, :'bob'), 'GX403', 'sanctioned', 'it has its effect');
SELECT is((api.user_sanction_apply('root', :'bob', jsonb_build_object('code', 'profile_update_block', 'reason', 'Ruder', 'expires_at', backend.ts(backend.now() + interval '1 hour')))).status, 201, 'again');
SELECT is(api.my_account_get(:'bob')::jsonb -> 'sanctions', jsonb_build_array(jsonb_build_object('code', 'profile_update_block', 'reason', 'Ruder', 'expires_at', backend.ts(backend.now() + interval '1 hour'))),
    'the newer takes the older''s place');
SELECT is((SELECT count(*) FROM backend.sanction_records WHERE user_id = :'bob'), 2::bigint, 'both stay on record');
UPDATE backend.clock SET clock_offset = '1 hour';
SELECT lives_ok(format($$SELECT api.my_profile_update(%L, '{"display_name": "Bob"}')$$, :'bob'), 'its end ends it');
SELECT throws_ok(format($$SELECT api.user_sanction_lift('root', %L, 'profile_update_block', '{"reason": "x"}')$$, :'bob'), 'GX404', 'sanction_not_found', 'what is over is not lifted');
UPDATE backend.clock SET clock_offset = '0';
SELECT is(api.user_sanction_lift('root', :'bob', 'profile_update_block', '{"reason": "Sorry"}')::jsonb -> 'sanctions', '[]', 'what is in force is');
SELECT throws_ok(format($$SELECT api.user_sanction_lift('root', %L, 'profile_update_block', '{"reason": "x"}')$$, :'bob'), 'GX404', 'sanction_not_found', 'once');
SELECT throws_ok(format($$SELECT api.user_sanction_apply('root', %L, '{"code": "%s", "reason": "x", "expires_at": "%s"}')$$, :'bob', c, e), 'GX400', 'invalid_request', d)
  FROM (VALUES ('login_block', backend.ts(backend.now()), 'an end is to come'), ('permanent_block', '2100-01-01T00:00:00Z', 'a block for good has none')) AS t(c, e, d);
SELECT count(*) AS events FROM backend.push_pending WHERE reason IS NOT NULL \gset
SELECT api.user_sanction_apply('root', :'bob', '{"code": "login_block", "reason": "x"}') \g /dev/null
SELECT is((SELECT string_agg(revoke_reason, ',') FROM backend.device_sessions WHERE user_id = :'bob'), 'revoked_by_admin', 'who may not sign in is signed out');
SELECT throws_ok(format('SELECT api.my_account_get(%L)', :'bob'), 'GX403', 'sanctioned', 'and stays out');
SELECT pg_temp.game(:'cid', '{"race_name": "Gammas"}') AS game \gset
SELECT api.user_sanction_apply('root', :'cid', '{"code": "permanent_block", "reason": "x"}') \g /dev/null
SELECT is((SELECT string_agg(revoke_reason, ',') FROM backend.device_sessions WHERE user_id = :'cid'), 'account_blocked,account_blocked', 'who is blocked for good is signed out');
SELECT is((SELECT count(*) FROM backend.push_pending WHERE reason IS NOT NULL) - :events, 2::bigint, 'the gateways are told once of each');
SELECT is(pg_temp.state(:'game'), 'cancelled', 'and their lobby is released');
SELECT throws_ok(format('SELECT api.my_account_get(%L)', :'cid'), 'GX403', 'account_blocked', 'they stay out');
SELECT is(api.user_sanction_lift('root', :'cid', 'permanent_block', '{"reason": "x"}')::jsonb -> 'permanent_block', 'false', 'until it is lifted');
SELECT lives_ok(format('SELECT api.my_account_get(%L)', :'cid'), 'then they come back');

-- What each sanction keeps from.
CREATE FUNCTION pg_temp.under(p_user_id uuid, p_code text, p_sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_temp.sanction(p_user_id, p_code);
    RETURN pg_temp.answer(p_sql);
END;
$$;
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas"}') AS anns \gset
SELECT api.invite_create(:'ann', :'anns', '{}', 'ABC', sha256('ABC')), api.game_open_enrollment(:'ann', :'anns') \g /dev/null
SELECT is(pg_temp.under(u::uuid, c, s), 'GX403 sanctioned', format('%s keeps somebody from it', c))
  FROM (VALUES
    (:'cid', 'private_game_create_block', format('SELECT api.game_create(%L, %L)', :'cid', pg_temp.body())),
    (:'cid', 'game_join_block', format('SELECT api.invite_redeem_by_code(%L, ''{"race_name": "Etas"}'', sha256(''ABC''))', :'cid')),
    (:'ann', 'private_game_manage_block', format('SELECT api.game_cancel(%L, %L)', :'ann', :'anns')),
    (:'ann', 'profile_update_block', format('SELECT api.my_profile_update(%L, ''{"display_name": "x"}'')', :'ann')),
    (:'ann', 'login_block', format('SELECT api.my_settings_update(%L, ''{"time_zone": "UTC"}'')', :'ann'))
  ) AS t(u, c, s);
DELETE FROM backend.sanction_active WHERE user_id = :'ann' AND code = 'login_block';
SELECT is(pg_temp.answer(format('SELECT api.invite_create(%L, %L, ''{}'', ''X'', sha256(''X''))', :'ann', :'anns')), 'GX403 sanctioned', 'and from inviting');
DELETE FROM backend.sanction_active WHERE user_id IN (:'ann', :'cid');

-- Limits.
SELECT (r).body FROM (SELECT api.user_limit_apply('root', :'ann', '{"code": "max_owned_private_games", "value": 0, "reason": "x"}') AS r OFFSET 0) AS t \gset
SELECT is(:'body'::jsonb - 'limit_record_id',
    jsonb_build_object('code', 'max_owned_private_games', 'action', 'apply', 'value', 0, 'reason', 'x', 'actor', 'root', 'expires_at', NULL, 'created_at', backend.ts(backend.now())), 'a limit is set');
SELECT throws_ok(format('SELECT api.game_create(%L, %L)', :'ann', pg_temp.body()), 'GX422', 'limit_reached', 'it has its effect');
SELECT is((api.user_limit_apply('root', :'ann', '{"code": "max_owned_private_games", "value": 2.0, "reason": "x"}')).status, 201, 'it is set anew');
SELECT is(backend.account_limit(:'ann', 'max_owned_private_games'), 2, 'in the older''s place');
SELECT is(api.user_limit_clear('root', :'ann', 'max_owned_private_games', '{"reason": "x"}')::jsonb -> 'limits', '[]', 'it is cleared');
SELECT throws_ok(format($$SELECT api.user_limit_clear('root', %L, 'max_owned_private_games', '{"reason": "x"}')$$, :'ann'), 'GX404', 'limit_not_found', 'once');

-- One person.
SELECT is(api.user_get('root', :'bob')::jsonb - 'sanction_records' - 'limit_records' - 'entitlement_records',
    (SELECT backend.account_internal_json(a) FROM backend.accounts AS a WHERE user_id = :'bob'), 'a person is shown as they are');
SELECT is((SELECT jsonb_agg(jsonb_build_array(r -> 'action', r -> 'code', r -> 'reason')) FROM jsonb_array_elements(api.user_get('root', :'bob')::jsonb -> 'sanction_records') AS r),
    '[["apply", "login_block", "x"], ["lift", "profile_update_block", "Sorry"], ["apply", "profile_update_block", "Ruder"], ["apply", "profile_update_block", "Rude"]]',
    'with what was decided, the newest first');
SELECT is((SELECT jsonb_agg(r -> 'tier') FROM jsonb_array_elements(api.user_get('root', :'ann')::jsonb -> 'entitlement_records') AS r), '["free", "yearly", "permanent", "monthly", "free", "free"]', 'and granted');
SELECT backend.limit_apply(:'ann', 'max_owned_private_games', i, 'x', 'root', NULL) FROM generate_series(1, 60) AS i \g /dev/null
SELECT is(jsonb_array_length(api.user_get('root', :'ann')::jsonb -> 'limit_records'), 50, 'of each the newest fifty');

-- All of them.
SELECT a.user_id AS dan FROM backend.account_create('email', 'dan@example.org', 'dan@example.org', 'en', 'UTC', NULL) AS a \gset
SELECT backend.account_delete(:'dan') \g /dev/null
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'cid';
SELECT pg_temp.grant_tier(:'cid', 'yearly') \g /dev/null
CREATE TEMPORARY TABLE names AS SELECT * FROM (VALUES (:'ann', 'ann'), (:'bob', 'bob'), (:'cid', 'cid'), (:'dan', 'dan')) AS t(user_id, name);
CREATE FUNCTION pg_temp.found(p_q text, p_status text[], p_tier text, p_sanction text) RETURNS text LANGUAGE sql
RETURN (SELECT coalesce(string_agg(n.name, ' ' ORDER BY t.n), 'none')
          FROM jsonb_array_elements(api.user_list('root', 50, NULL, p_q, p_status, p_tier, p_sanction)::jsonb -> 'items') WITH ORDINALITY AS t(i, n) JOIN names AS n ON n.user_id = t.i ->> 'user_id');
SELECT is(pg_temp.found(q, s, t, c), e, d)
  FROM (VALUES
    (NULL, NULL::text[], NULL, NULL, 'dan cid bob ann', 'all, newest first'),
    ('  BOB@ ', NULL, NULL, NULL, 'bob', 'by a part of the address, in any case'), (E'GRO\u0308', NULL, NULL, NULL, 'ann', 'by a part of the display name, however it was typed'),
    ('player-', NULL, NULL, NULL, 'dan cid bob ann', 'by a part of the user name'), (upper(:'bob'), NULL, NULL, NULL, 'bob', 'by the id'), (left(:'bob', 20), NULL, NULL, NULL, 'none', 'all of it'),
    ('%', NULL, NULL, NULL, 'none', 'no sign means another'), ('_', NULL, NULL, NULL, 'none', 'none at all'),
    ('dan@example.org', NULL, NULL, NULL, 'dan', 'somebody who is gone by the whole address'), ('dan@', NULL, NULL, NULL, 'none', 'of which no part is kept'),
    (NULL, '{active}', NULL, NULL, 'bob ann', 'those who are there'), (NULL, '{deleted,blocked}', NULL, NULL, 'dan cid', 'those who are gone or blocked'),
    (NULL, NULL, 'yearly', NULL, 'cid', 'by tier'), (NULL, NULL, NULL, 'login_block', 'bob', 'by a sanction that is in force'), (NULL, NULL, NULL, 'game_join_block', 'none', 'not one that was'),
    ('b', '{active}', 'free', 'login_block', 'bob', 'by all together')
  ) AS t(q, s, t, c, e, d);
INSERT INTO backend.identities (provider, subject, user_id) VALUES ('telegram', 'Sub-4711', :'bob');
SELECT is(
    (SELECT string_agg(i ->> 'user_id', ',') FROM jsonb_array_elements(api.user_list('root', 50, NULL, q, NULL, NULL, NULL)::jsonb -> 'items') AS t(i)), w,
    format('by a subject of a provider, whole and exact: %s', q))
  FROM (VALUES ('Sub-4711', :'bob'), (' Sub-4711 ', :'bob'), ('Sub-471', NULL), ('sub-4711', NULL)) AS t(q, w);
DELETE FROM backend.identities WHERE subject = 'Sub-4711';
SELECT api.user_list('root', 2, NULL, NULL, NULL, NULL, NULL)::jsonb ->> 'next_cursor' AS cursor \gset
SELECT is(jsonb_array_length(api.user_list('root', 2, :'cursor', NULL, NULL, NULL, NULL)::jsonb -> 'items'), 2, 'in pages');
SELECT throws_ok(format('SELECT api.user_list(''root'', 2, %L, ''b'', NULL, NULL, NULL)', :'cursor'), 'GX400', 'invalid_cursor', 'a cursor is of one search');

-- Their sessions.
SELECT is(jsonb_array_length(api.user_session_list('root', :'cid', 50, NULL)::jsonb -> 'items'), 2, 'a person''s sessions are listed');
SELECT throws_ok(format('SELECT api.user_session_list(''root'', %L, 2, %L)', :'bob', :'cursor'), 'GX400', 'invalid_cursor', 'in pages of their own');
INSERT INTO backend.device_sessions (user_id, kind, client_public_key) SELECT :'ann', 'key', sha256(i::text::bytea) FROM generate_series(1, 2) AS i;
SELECT is(api.user_session_revoke_all('root', :'ann', NULL)::jsonb, '{"revoked": 2}', 'all are revoked');
SELECT is(api.user_session_revoke_all('root', :'ann', '{"reason": "x"}')::jsonb, '{"revoked": 0}', 'once');

-- The end.
SELECT is(api.user_soft_delete('root', :'bob', '{"reason": "Asked for"}'), NULL, 'an account is deleted');
SELECT is((SELECT deleted_at FROM backend.accounts WHERE user_id = :'bob'), backend.now(), 'for good');
CREATE TEMPORARY TABLE calls (name text, call text);
INSERT INTO calls VALUES
    ('user_entitlement_grant', $$SELECT api.user_entitlement_grant(%L, %L, '{"tier": "monthly", "reason_code": "x"}')$$),
    ('user_sanction_apply', $$SELECT api.user_sanction_apply(%L, %L, '{"code": "login_block", "reason": "x"}')$$),
    ('user_sanction_lift', $$SELECT api.user_sanction_lift(%L, %L, 'login_block', '{"reason": "x"}')$$),
    ('user_limit_apply', $$SELECT api.user_limit_apply(%L, %L, '{"code": "max_active_memberships", "value": 1, "reason": "x"}')$$),
    ('user_limit_clear', $$SELECT api.user_limit_clear(%L, %L, 'max_active_memberships', '{"reason": "x"}')$$),
    ('user_soft_delete', 'SELECT api.user_soft_delete(%L, %L, NULL)'), ('user_get', 'SELECT api.user_get(%L, %L)'),
    ('user_session_list', 'SELECT api.user_session_list(%L, %L, 50, NULL)'), ('user_session_revoke_all', 'SELECT api.user_session_revoke_all(%L, %L, NULL)');
SELECT throws_ok(format(call, 'root', :'bob'), 'GX409', 'conflict', format('%s does nothing to somebody who is gone', name)) FROM calls WHERE name !~ 'get|session';
SELECT lives_ok(format(call, 'root', :'bob'), format('%s shows what is left', name)) FROM calls WHERE name ~ 'get|session';
SELECT throws_ok(format(call, 'root', :'nobody'), 'GX404', 'account_not_found', format('%s is about somebody', name)) FROM calls;
SELECT throws_ok(format(call, 'eve', :'ann'), 'GX401', 'unauthorized', format('%s is for administrators', name)) FROM calls;
SELECT throws_ok($$SELECT api.user_list('eve', 50, NULL, NULL, NULL, NULL, NULL)$$, 'GX401', 'unauthorized', 'so is the list');

-- The log.
SELECT results_eq(
    $$SELECT action COLLATE "C", count(*) FROM backend.audit_log WHERE object_type = 'account' AND admin = 'root' GROUP BY 1 ORDER BY 1$$,
    $$VALUES ('user_entitlement_grant' COLLATE "C", 4::bigint), ('user_limit_apply', 2), ('user_limit_clear', 1), ('user_sanction_apply', 4), ('user_sanction_lift', 2),
             ('user_session_revoke_all', 3), ('user_soft_delete', 1)$$, 'every command is in the log, and no refusal');

SELECT * FROM finish();
ROLLBACK;
