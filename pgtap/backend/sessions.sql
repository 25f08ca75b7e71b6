-- Test galaxy-backend:backend/sessions

BEGIN;
SELECT plan(49);
\ir ../helpers.psql
-- Before anything is counted for the whole service: tests that do that and move the clock go one after another.
SELECT FROM backend.clock FOR UPDATE \g /dev/null

-- Attributes.
SELECT has_table('backend', 'device_sessions', 'there is device_sessions');
SELECT col_is_pk('backend', 'device_sessions', 'device_session_id', 'a session has an id');
SELECT fk_ok('backend', 'device_sessions', 'user_id', 'backend', 'accounts', 'user_id', 'a session is a person''s');
SELECT col_not_null('backend', 'device_sessions', c, format('%s is always told', c)) FROM unnest(ARRAY['user_id', 'kind', 'status']) AS c;
SELECT has_index('backend', 'device_sessions', 'device_sessions_by_user', ARRAY['user_id', 'device_session_id'], 'a person''s sessions are found in order');
SELECT index_is_unique('backend', 'device_sessions', 'device_sessions_token_is_unique', 'a token opens one session');
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('session_json', 'stable'), ('session_revoke', 'volatile'), ('session_revoke_all', 'volatile')) AS t(f, v);

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM backend.device_sessions', '42501', NULL, 'backend_api does not see the sessions');
SELECT throws_ok($$SELECT backend.session_revoke(gen_random_uuid(), 'logout')$$, '42501', NULL, 'backend_api ends none but through its door');
RESET ROLE;

-- The machine.
SELECT set_eq(
    $$SELECT action, from_state, to_state FROM backend.state_transitions WHERE machine = 'device_session'$$,
    $$VALUES ('open', NULL, 'active'), ('revoke', 'active', 'revoked')$$, 'a session is opened, and revoked for good');

-- Constraints.
SELECT a.user_id AS ann FROM backend.account_create('email', 'ann@example.org', 'ann@example.org', 'en', 'UTC', NULL) AS a \gset
SELECT a.user_id AS bob FROM backend.account_create('email', 'bob@example.org', 'bob@example.org', 'en', 'UTC', NULL) AS a \gset
CREATE FUNCTION pg_temp.session(p_user_id uuid, p_byte text DEFAULT '01') RETURNS uuid LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO backend.device_sessions (user_id, kind, client_public_key) VALUES (p_user_id, 'key', decode(repeat(p_byte, 32), 'hex'))
    RETURNING device_session_id;
END;
SELECT is(
    pg_temp.violated(format(
        $$INSERT INTO backend.device_sessions (user_id, kind, client_public_key, token_hash, revoked_at, revoke_reason) VALUES (%L, %s)$$, :'ann',
        replace(replace(v, ':32', $$decode(repeat('01', 32), 'hex')$$), ':31', $$decode(repeat('01', 31), 'hex')$$))),
    c, d)
  FROM (VALUES
    ($$'key', :32, NULL, NULL, NULL$$, 'nothing', 'a session may be of a key'),
    ($$'token', NULL, :32, NULL, NULL$$, 'nothing', 'a session may be of a token'),
    ($$'token', NULL, :32, NULL, NULL$$, 'device_sessions_token_is_unique', 'a token opens one session'),
    ($$'face', NULL, NULL, NULL, NULL$$, 'device_sessions_kind_is_known', 'a kind is known'),
    ($$'key', :31, NULL, NULL, NULL$$, 'device_sessions_key_has_32_bytes', 'a key has 32 bytes'),
    ($$'token', NULL, :31, NULL, NULL$$, 'device_sessions_token_hash_has_32_bytes', 'a token''s hash has 32 bytes'),
    ($$'key', NULL, NULL, NULL, NULL$$, 'device_sessions_kind_has_its_secret', 'a session of a key has one'),
    ($$'key', :32, :32, NULL, NULL$$, 'device_sessions_kind_has_its_secret', 'and no token'),
    ($$'token', :32, NULL, NULL, NULL$$, 'device_sessions_kind_has_its_secret', 'a session of a token has one and no key'),
    ($$'key', :32, NULL, now(), NULL$$, 'device_sessions_revoked_says_when_and_why', 'an active session was not revoked'),
    ($$'key', :32, NULL, NULL, 'logout'$$, 'device_sessions_revoked_says_when_and_why', 'and has no reason')
  ) AS t(v, c, d);
SELECT is(
    pg_temp.violated(format($$UPDATE backend.device_sessions SET status = 'revoked', revoked_at = now(), revoke_reason = %s WHERE user_id = %L$$, v, :'ann')),
    c, d)
  FROM (VALUES
    ($$'boredom'$$, 'device_sessions_reason_is_known', 'a reason is known'),
    ('NULL', 'device_sessions_revoked_says_when_and_why', 'who revokes says why')) AS t(v, c, d);
SELECT is(
    pg_temp.violated(format($$UPDATE backend.device_sessions SET status = 'revoked', revoke_reason = 'logout' WHERE user_id = %L$$, :'ann')),
    'device_sessions_revoked_says_when_and_why', 'and when');
DELETE FROM backend.device_sessions;

-- What a session looks like.
SELECT pg_temp.session(:'ann') AS phone, pg_temp.session(:'ann', '02') AS tablet, pg_temp.session(:'bob') AS other \gset
SELECT is(
    (SELECT backend.session_json(s)::jsonb FROM backend.device_sessions AS s WHERE device_session_id = :'phone'),
    jsonb_build_object(
        'device_session_id', :'phone', 'user_id', :'ann', 'kind', 'key', 'status', 'active',
        'client_public_key', 'AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=', 'created_at', backend.ts(backend.now()),
        'revoked_at', NULL, 'revoke_reason', NULL),
    'a session is shown as the contract says');
UPDATE backend.device_sessions SET last_seen_at = backend.now() + interval '1 hour' WHERE device_session_id = :'phone';
SELECT is(
    (SELECT backend.session_json(s)::text FROM backend.device_sessions AS s WHERE device_session_id = :'phone') ~ 'seen', false,
    'being seen changes nothing of it');

-- Revoking one.
UPDATE backend.clock SET clock_offset = '1 hour';
SELECT results_eq(
    format($$SELECT status, revoked_at, revoke_reason FROM backend.session_revoke(%L, 'revoked_by_user')$$, :'phone'),
    $$VALUES ('revoked', transaction_timestamp() + interval '1 hour', 'revoked_by_user')$$, 'a session is revoked, with when and why');
SELECT results_eq(
    'SELECT user_id, device_session_id, reason FROM backend.push_pending',
    format($$VALUES (%L::uuid, %L::uuid, 'revoked_by_user')$$, :'ann', :'phone'), 'the gateways are told, in the same transaction');
UPDATE backend.clock SET clock_offset = '2 hours';
SELECT results_eq(
    format($$SELECT status, revoked_at, revoke_reason FROM backend.session_revoke(%L, 'logout')$$, :'phone'),
    $$VALUES ('revoked', transaction_timestamp() + interval '1 hour', 'revoked_by_user')$$, 'revoking again changes nothing');
SELECT is((SELECT count(*) FROM backend.push_pending), 1::bigint, 'and tells nobody');
SELECT is((SELECT status FROM backend.device_sessions WHERE device_session_id = :'tablet'), 'active', 'another session stays');
SELECT is((backend.session_revoke(gen_random_uuid(), 'logout')).device_session_id, NULL, 'one that is not there is null');
SELECT is((SELECT count(*) FROM backend.push_pending), 1::bigint, 'of which nobody is told');

-- Revoking all.
DELETE FROM backend.push_pending;
SELECT pg_temp.session(:'ann', '03') \g /dev/null
SELECT is(backend.session_revoke_all(:'ann', 'account_blocked'), 2, 'all active sessions of a person are revoked, and counted');
SELECT results_eq(
    format('SELECT status, revoke_reason FROM backend.device_sessions WHERE user_id = %L ORDER BY device_session_id', :'ann'),
    $$VALUES ('revoked', 'revoked_by_user'), ('revoked', 'account_blocked'), ('revoked', 'account_blocked')$$, 'one that was revoked before keeps its reason');
SELECT results_eq(
    'SELECT user_id, device_session_id, reason FROM backend.push_pending',
    format($$VALUES (%L::uuid, NULL::uuid, 'account_blocked')$$, :'ann'), 'the gateways are told once, of the person');
SELECT is((SELECT status FROM backend.device_sessions WHERE device_session_id = :'other'), 'active', 'somebody else''s stay');
SELECT is(backend.session_revoke_all(:'ann', 'logout'), 0, 'where there is none to revoke none is');
SELECT is((SELECT count(*) FROM backend.push_pending), 1::bigint, 'and nobody is told');
SELECT is(backend.session_revoke_all(gen_random_uuid(), 'logout'), 0, 'nobody has none');

-- Nothing brings one back.
SELECT throws_ok(
    format($$UPDATE backend.device_sessions SET status = 'active', revoked_at = NULL, revoke_reason = NULL WHERE device_session_id = %L$$, :'phone'),
    'GX409', 'invalid_transition', 'not even a hand-typed UPDATE');
SELECT throws_ok(
    format($$INSERT INTO backend.device_sessions (user_id, kind, status, client_public_key, revoked_at, revoke_reason)
             VALUES (%L, 'key', 'revoked', decode(repeat('01', 32), 'hex'), now(), 'logout')$$, :'ann'),
    'GX409', 'invalid_transition', 'and none begins at its end');

-- Invariants.
SELECT is_empty('SELECT * FROM backend.invariants_sessions', 'nothing is wrong yet');
SELECT pg_temp.plant(format('UPDATE backend.accounts SET permanent_block = true WHERE user_id = %L', :'bob')) \g /dev/null
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_sessions',
    format($$VALUES ('active_session_of_a_closed_account', %L::uuid)$$, :'other'), 'an active session of somebody who is blocked is listed');
SELECT pg_temp.plant(format('UPDATE backend.accounts SET permanent_block = false, deleted_at = now(), email = NULL WHERE user_id = %L', :'bob')) \g /dev/null
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_sessions',
    format($$VALUES ('active_session_of_a_closed_account', %L::uuid)$$, :'other'), 'and of somebody who is gone');

SELECT * FROM finish();
ROLLBACK;
