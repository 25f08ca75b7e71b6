-- Test galaxy-backend:api/auth

BEGIN;
SELECT plan(110);
\ir ../helpers.psql

-- Attributes.
SELECT function_returns('api', 'email_code_send', ARRAY['jsonb', 'text', 'bytea', 'inet'], 'text', 'to ask for a code has one answer');
SELECT function_returns('api', 'email_code_confirm', ARRAY['jsonb', 'bytea', 'text', 'inet'], 'api.reply', 'to confirm one has several');
SELECT volatility_is('api', f, 'volatile', format('%s() is VOLATILE', f)) FROM unnest(ARRAY['email_code_send', 'email_code_confirm']) AS f;
SELECT is_definer('api', f, format('%s() has its owner''s rights', f)) FROM unnest(ARRAY['email_code_send', 'email_code_confirm']) AS f;

-- Privileges.
SELECT function_privs_are('api', f, a, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', f))
  FROM (VALUES ('email_code_send', ARRAY['jsonb', 'text', 'bytea', 'inet']), ('email_code_confirm', ARRAY['jsonb', 'bytea', 'text', 'inet'])) AS t(f, a);
SELECT function_privs_are('api', f, a, r, '{}'::name[], format('%s may not execute %s()', r, f))
  FROM (VALUES ('email_code_send', ARRAY['jsonb', 'text', 'bytea', 'inet']), ('email_code_confirm', ARRAY['jsonb', 'bytea', 'text', 'inet'])) AS t(f, a),
       unnest(ARRAY['backend_worker', 'backend_push']) AS r;

-- As the program calls them.
CREATE FUNCTION pg_temp.send(p_email text, p_code text DEFAULT '123456', p_locale text DEFAULT NULL, p_ip inet DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql SET role = backend_api AS $$
BEGIN
    RETURN api.email_code_send(jsonb_strip_nulls(jsonb_build_object('email', p_email, 'locale', p_locale)), p_code, sha256(p_code::bytea), p_ip)::jsonb
           ->> 'challenge_id';
END;
$$;
CREATE FUNCTION pg_temp.confirm(
    p_challenge_id uuid, p_code text DEFAULT '123456', p_zone text DEFAULT 'Europe/Berlin', p_country text DEFAULT 'DE', p_ip inet DEFAULT NULL
) RETURNS api.reply
LANGUAGE plpgsql SET role = backend_api AS $$
BEGIN
    RETURN api.email_code_confirm(
        jsonb_build_object('challenge_id', p_challenge_id, 'code', p_code, 'time_zone', p_zone,
                           'client_public_key', 'AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE='),
        sha256(p_code::bytea), p_country, p_ip);
END;
$$;
CREATE FUNCTION pg_temp.said(p_reply api.reply) RETURNS text LANGUAGE sql
RETURN concat_ws(' ', p_reply.status, p_reply.body::jsonb ->> 'code');
CREATE FUNCTION pg_temp.attempts(p_challenge_id uuid) RETURNS integer LANGUAGE sql
RETURN (SELECT c.attempts FROM backend.auth_challenges AS c WHERE c.challenge_id = p_challenge_id);

-- Asking for a code.
SELECT pg_temp.send(' Ann@Example.ORG', '000042', 'de-AT') AS first \gset
SELECT results_eq(
    format('SELECT email, code_hash, language, attempts, requests, created_at, expires_at, consumed_at FROM backend.auth_challenges
             WHERE challenge_id = %L', :'first'),
    format($$VALUES ('ann@example.org', backend.code_hash(%L, sha256('000042')), 'de', 0, 1, backend.now(), backend.now() + interval '10 minutes',
                     NULL::timestamptz)$$, :'first'),
    'a challenge is made for the normalised address, with a hash of the code');
SELECT is_empty(
    $$SELECT FROM backend.auth_challenges AS c WHERE to_jsonb(c)::text ~ '000042'$$, 'the code itself is not in it');
SELECT results_eq(
    'SELECT d.template_id, d.idempotency_key, r.address, d.expires_at, d.user_id, d.status
       FROM backend.mail_deliveries AS d JOIN backend.mail_recipients AS r USING (delivery_id)',
    format($$VALUES ('auth.login_code', %L, 'ann@example.org', backend.now() + interval '10 minutes', NULL::uuid, 'pending')$$, :'first'),
    'and a mail, which is worth nothing once the challenge is over');
SELECT ok(
    (SELECT body_text ~ '\n    000042\n' AND body_html ~ '>000042<' AND body_text ~ 'good for 10 minutes' FROM backend.mail_payloads),
    'the mail says the code and how long it is good for');
SELECT is((SELECT count(*) FROM procrastinate.procrastinate_jobs), 1::bigint, 'a worker is woken');

-- The throttle.
CREATE FUNCTION pg_temp.made() RETURNS bigint LANGUAGE sql
RETURN (SELECT count(*) FROM backend.auth_challenges AS c WHERE c.email = 'ann@example.org');
SELECT pg_temp.send('ann@example.org') AS second, pg_temp.send('ANN@example.org') AS third \gset
SELECT is(pg_temp.made(), 3::bigint, 'three challenges are made within the window');
-- The second is the newest of them; somebody else's is newer still.
UPDATE backend.auth_challenges SET created_at = created_at - interval '2 seconds', attempts = 2 WHERE challenge_id <> :'second';
UPDATE backend.auth_challenges SET created_at = created_at - interval '1 second', attempts = 3 WHERE challenge_id = :'second';
SELECT isnt(pg_temp.send('bob@example.org'), NULL, 'another address is not throttled');
SELECT is((SELECT count(*) FROM backend.mail_deliveries), 4::bigint, 'and gets its mail');
SELECT pg_temp.send('ann@example.org') AS fourth \gset
SELECT is(:'fourth'::uuid, :'second'::uuid, 'the fourth is the newest live one');
SELECT results_eq(
    format('SELECT requests, attempts, expires_at FROM backend.auth_challenges WHERE challenge_id = %L', :'second'),
    $$VALUES (2, 3, backend.now() + interval '10 minutes')$$, 'which is counted, lives no longer and forgets no attempt');
SELECT is((SELECT count(*) FROM backend.mail_deliveries), 4::bigint, 'and of which no mail is sent');
UPDATE backend.auth_challenges SET consumed_at = backend.now() WHERE challenge_id = :'second';
SELECT pg_temp.send('ann@example.org') \g /dev/null
SELECT is(pg_temp.made(), 4::bigint, 'one that is consumed does not count');
UPDATE backend.auth_challenges SET expires_at = backend.now() WHERE challenge_id = :'third';
SELECT pg_temp.send('ann@example.org') AS newest \gset
SELECT is(pg_temp.made(), 5::bigint, 'nor does one that has expired');
-- Three are live: the first, and the two that came last. Of the newest, one is used up and one is over.
UPDATE backend.auth_challenges SET created_at = backend.now() - interval '3 seconds' WHERE email = 'ann@example.org' AND created_at = backend.now();
UPDATE backend.auth_challenges SET created_at = backend.now() - interval '2 seconds' WHERE challenge_id = :'newest';
UPDATE backend.auth_challenges SET created_at = backend.now() - interval '1 second' WHERE challenge_id IN (:'second', :'third');
SELECT is(pg_temp.send('ann@example.org'), :'newest'::uuid, 'neither is ever used again');
DELETE FROM backend.auth_challenges;
SELECT pg_temp.send('ann@example.org'), pg_temp.send('ann@example.org'), pg_temp.send('ann@example.org') \g /dev/null
UPDATE backend.clock SET clock_offset = '60 seconds' - interval '1 microsecond';
SELECT pg_temp.send('ann@example.org') \g /dev/null
SELECT is((SELECT count(*) FROM backend.auth_challenges), 3::bigint, 'the window lasts a minute');
UPDATE backend.clock SET clock_offset = '60 seconds';
SELECT pg_temp.send('ann@example.org') \g /dev/null
SELECT is((SELECT count(*) FROM backend.auth_challenges), 4::bigint, 'and then the next challenge is made');
UPDATE backend.clock SET clock_offset = '0';
DELETE FROM backend.auth_challenges;

-- Nobody is throttled by another network, nor given its challenge.
SELECT pg_temp.send('ann@example.org', p_ip => '192.0.2.1') AS one, pg_temp.send('ann@example.org', p_ip => '192.0.2.2') AS two, pg_temp.send('ann@example.org', p_ip => '::ffff:192.0.2.3') AS three \gset
UPDATE backend.auth_challenges SET created_at = created_at - interval '1 second' WHERE challenge_id <> :'three';
SELECT is(pg_temp.send('ann@example.org', p_ip => '192.0.2.4'), :'three'::uuid, 'a network that asked three times is given the newest of its own');
SELECT pg_temp.send('ann@example.org', p_ip => '198.51.100.1') AS mine \gset
SELECT is((SELECT count(*) FROM backend.mail_deliveries WHERE idempotency_key = :'mine'), 1::bigint, 'another one gets its mail at the same moment');
SELECT is(pg_temp.send('ann@example.org', p_ip => '192.0.2.4'), :'three'::uuid, 'of which the first is told nothing');
SELECT is(
    (SELECT source_hash FROM backend.auth_challenges WHERE challenge_id = :'mine'), backend.budget_key('address', 'ann@example.org', '198.51.100.0/24'),
    'the network is kept as a hash');
DELETE FROM backend.auth_challenges;
DELETE FROM backend.auth_budgets;

-- The numbers are those of the connection, within bounds.
SET LOCAL backend.challenge_throttle_max = '1';
SET LOCAL backend.challenge_throttle_window = '10';
SET LOCAL backend.challenge_ttl = '90';
SELECT is(pg_temp.send('ann@example.org'), pg_temp.send('ann@example.org'), 'the limit is a setting');
SELECT is((SELECT expires_at FROM backend.auth_challenges), backend.now() + interval '90 seconds', 'the lifetime is a setting');
SELECT ok(
    (SELECT p.body_text ~ 'good for 2 minutes'
       FROM backend.auth_challenges AS c JOIN backend.mail_deliveries AS d ON d.idempotency_key = c.challenge_id::text
       JOIN backend.mail_payloads AS p USING (payload_id)), 'the mail rounds its minutes up');
UPDATE backend.clock SET clock_offset = '10 seconds';
SELECT pg_temp.send('ann@example.org') \g /dev/null
SELECT is((SELECT count(*) FROM backend.auth_challenges), 2::bigint, 'the window is a setting');
SET LOCAL backend.challenge_ttl = '999999';
SELECT is(
    (SELECT expires_at FROM backend.auth_challenges WHERE challenge_id = pg_temp.send('eve@example.org')), NULL, 'a challenge is made');
SELECT is(
    (SELECT expires_at - created_at FROM backend.auth_challenges WHERE email = 'eve@example.org'), interval '1 hour', 'which no setting makes live for long');
UPDATE backend.clock SET clock_offset = '0';
RESET backend.challenge_throttle_max;
RESET backend.challenge_throttle_window;
RESET backend.challenge_ttl;
DELETE FROM backend.auth_challenges;

-- Who may not ask.
INSERT INTO backend.blocked_emails (email, actor) VALUES ('eve@example.org', 'root');
SELECT throws_ok($$SELECT pg_temp.send('Eve@example.org')$$, 'GX400', 'email_blocked', 'a blocked address gets no code');
SELECT a.user_id AS mallory FROM backend.account_create('email', 'mal@example.org', 'mal@example.org', 'en', 'UTC', NULL) AS a \gset
SELECT lives_ok($$SELECT pg_temp.send('mal@example.org')$$, 'somebody with an account gets one');
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'mallory';
SELECT throws_ok($$SELECT pg_temp.send('mal@example.org')$$, 'GX400', 'email_blocked', 'somebody who is blocked for good does not');
SELECT is(
    pg_temp.refused($$SELECT pg_temp.send('mal@example.org')$$),
    pg_temp.refused($$SELECT pg_temp.send('eve@example.org')$$), 'and is told no more than that');
SELECT is((SELECT count(*) FROM backend.auth_challenges), 1::bigint, 'nothing is left of what was refused');
UPDATE backend.accounts SET permanent_block = false WHERE user_id = :'mallory';
SELECT is(
    pg_temp.refused(format($$SELECT api.email_code_send(%L, '1', '\x01', NULL)$$, b)),
    jsonb_build_object('sqlstate', 'GX400', 'message', 'invalid_request', 'detail', 'The request is malformed.',
                       'hint', '[{"path": "email", "problem": "is not an e-mail address"}]'),
    format('%s has no address', b))
  FROM unnest(ARRAY['{"email": "ann@localhost"}', '{"email": null}', '{}']) AS b;
DELETE FROM backend.auth_challenges;

-- Confirming: what is refused.
SELECT pg_temp.send('ann@example.org', '123456', 'de-AT') AS challenge \gset
SELECT is(pg_temp.said(pg_temp.confirm(gen_random_uuid())), '400 invalid_code', 'a challenge that is not there is refused');
SELECT is(
    (pg_temp.confirm(:'challenge', '654321')).body::jsonb, '{"code": "invalid_code", "message": "The code is not valid.", "details": {}}',
    'a wrong code is refused');
SELECT is(pg_temp.attempts(:'challenge'), 1, 'and counted: what was refused stays');
SELECT is(
    (pg_temp.confirm(gen_random_uuid())).body, (pg_temp.confirm(:'challenge', '654321')).body, 'the answer does not tell the one from the other');
SELECT is(
    pg_temp.refused(format('SELECT pg_temp.confirm(%L, %L, %L)', :'challenge', '123456', z)),
    jsonb_build_object('sqlstate', 'GX400', 'message', 'invalid_request', 'detail', 'The request is malformed.',
                       'hint', '[{"path": "time_zone", "problem": "is not a known IANA time zone"}]'),
    format('a time zone is one that is known, not %s', coalesce(z, 'none')))
  FROM unnest(ARRAY['Mars/Olympus', 'europe/berlin', '', NULL]) AS z;
SELECT is(pg_temp.attempts(:'challenge'), 2, 'a malformed request is no attempt');

-- Confirming: a first sign-in.
SELECT r.status, r.body::jsonb ->> 'device_session_id' AS session, r.location FROM pg_temp.confirm(:'challenge') AS r \gset
SELECT is(:status, 200, 'a right code opens a session');
SELECT results_eq(
    format('SELECT s.kind, s.status, s.client_public_key, a.email, a.preferred_language, a.time_zone, a.declared_country
              FROM backend.device_sessions AS s JOIN backend.accounts AS a USING (user_id) WHERE s.device_session_id = %L', :'session'),
    $$VALUES ('key', 'active', decode(repeat('01', 32), 'hex'), 'ann@example.org', 'de', 'Europe/Berlin', 'DE')$$,
    'of the key, for a new account with the locale''s language, the zone and the country');
SELECT is(
    (SELECT consumed_at FROM backend.auth_challenges WHERE challenge_id = :'challenge'), backend.now(), 'the challenge is consumed');
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge')), '400 invalid_code', 'and opens nothing more');
SELECT is((SELECT count(*) FROM backend.device_sessions), 1::bigint, 'one code is one session');

-- Confirming: somebody who comes back.
SELECT pg_temp.send('ann@example.org', '111111', 'fr') AS challenge \gset
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge', '111111', 'UTC', 'FR')), '200', 'the same address opens another session');
SELECT results_eq(
    $$SELECT a.preferred_language, a.time_zone, a.declared_country, count(*)
        FROM backend.accounts AS a JOIN backend.device_sessions AS s USING (user_id) WHERE a.email = 'ann@example.org' GROUP BY a.user_id$$,
    $$VALUES ('de', 'Europe/Berlin', 'DE', 2::bigint)$$, 'of the same account, of which nothing changes');
SELECT pg_temp.send('bob@example.org') AS challenge \gset
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge', p_country => NULL)), '200', 'without a country or a locale one is let in as well');
SELECT results_eq(
    $$SELECT preferred_language, declared_country FROM backend.accounts WHERE email = 'bob@example.org'$$, $$VALUES ('en', NULL)$$, 'in English');

-- Confirming: a locale that is no more than its language, or not even that. It is taken when the code is asked for.
CREATE FUNCTION pg_temp.language(p_email text, p_locale text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_temp.confirm(pg_temp.send(p_email, '123456', p_locale));
    RETURN (SELECT preferred_language FROM backend.accounts WHERE email = p_email);
EXCEPTION WHEN check_violation THEN
    RETURN SQLERRM;
END;
$$;
SELECT is(pg_temp.language(format('locale-%s@example.org', i), l), w, format('the language of %s is %s', to_json(l), w))
  FROM (VALUES (1, 'EN', 'en'), (2, 'zh-Hant-TW', 'zh'), (3, 'en_US', 'en'), (4, '', 'en'), (5, '-', 'en'), (6, 'x', 'en'), (7, 'C.UTF-8', 'en')) AS t(i, l, w);

-- Confirming: so many attempts and no more.
SELECT pg_temp.send('ann@example.org') AS challenge \gset
SELECT pg_temp.confirm(:'challenge', '000000') FROM generate_series(1, 4) \g /dev/null
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge')), '200', 'the fifth code may be the right one');
SELECT pg_temp.send('cid@example.org') AS challenge \gset
SELECT pg_temp.confirm(:'challenge', '000000') FROM generate_series(1, 5) \g /dev/null
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge')), '400 invalid_code', 'the sixth is not looked at');
SELECT is(pg_temp.attempts(:'challenge'), 5, 'five were compared');
SELECT pg_temp.send('cid@example.org') AS challenge \gset
SET LOCAL backend.challenge_max_attempts = '1';
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge', '000000')), '400 invalid_code', 'a wrong one is refused');
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge')), '400 invalid_code', 'the number is a setting');
SET LOCAL backend.challenge_max_attempts = '1000';
SELECT pg_temp.confirm(:'challenge', '000000') FROM generate_series(1, 12) \g /dev/null
SELECT is(pg_temp.attempts(:'challenge'), 10, 'which no connection makes large');
RESET backend.challenge_max_attempts;

-- Confirming: in time.
SELECT pg_temp.send('dan@example.org') AS challenge \gset
UPDATE backend.clock SET clock_offset = '10 minutes';
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge')), '400 invalid_code', 'a challenge that is over is refused');
UPDATE backend.clock SET clock_offset = '10 minutes' - interval '1 microsecond';
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge')), '200', 'to its last moment it is not');
UPDATE backend.clock SET clock_offset = '0';

-- Confirming: who may not come in. The code was right, so it is used up; what is returned stays.
SELECT pg_temp.send('mal@example.org') AS challenge \gset
INSERT INTO backend.sanction_records (user_id, code, action, reason, actor, expires_at)
VALUES (:'mallory', 'login_block', 'apply', 'x', 'root', backend.now() + interval '1 minute') RETURNING sanction_record_id AS sanction \gset
INSERT INTO backend.sanction_active (user_id, code, sanction_record_id, reason, expires_at)
VALUES (:'mallory', 'login_block', :'sanction', 'x', backend.now() + interval '1 minute');
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge', '000000')), '400 invalid_code', 'with a wrong code nobody learns of a sanction');
SELECT r.status AS status, r.body AS body FROM pg_temp.confirm(:'challenge') AS r \gset
SELECT is(
    pg_temp.said(ROW(:status, :'body', NULL)::api.reply), '403 sanctioned', 'with a right one somebody who may not sign in is refused');
SELECT is(
    :'body'::jsonb, '{"code": "sanctioned", "message": "This account may not sign in at present.", "details": {"sanction": "login_block"}}',
    'and told why');
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge')), '400 invalid_code', 'the code is used up');
SELECT pg_temp.send('mal@example.org') AS challenge \gset
UPDATE backend.clock SET clock_offset = '1 minute';
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge')), '200', 'once the sanction is over they are let in');
SELECT pg_temp.send('mal@example.org') AS challenge \gset
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'mallory';
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge')), '403 account_blocked', 'somebody who was blocked for good meanwhile is refused');
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge')), '400 invalid_code', 'and the code is used up');
SELECT is((SELECT count(*) FROM backend.device_sessions WHERE user_id = :'mallory'), 1::bigint, 'no session was opened');

-- Budgets: what is over is answered like anything else.
DELETE FROM backend.auth_budgets;
SET LOCAL backend.challenge_throttle_max = '20';
SET LOCAL backend.code_mails_per_network = '2';
SET LOCAL backend.code_mails_per_address = '3';
SELECT pg_temp.send('gus@example.org', p_ip => '192.0.2.1') FROM generate_series(1, 2) \g /dev/null
SELECT pg_temp.send('gus@example.org', p_ip => '192.0.2.2') AS none \gset
SELECT is((SELECT count(*) FROM backend.auth_challenges WHERE email = 'gus@example.org'), 2::bigint, 'a network that had its mails gets no more');
SELECT is((SELECT count(*) FROM backend.auth_challenges WHERE challenge_id = :'none'), 0::bigint, 'but an id that opens nothing');
SELECT matches(:'none'::text, '^[0-9a-f]{8}-[0-9a-f]{4}-7', 'of the kind that challenges have');
SELECT is(pg_temp.said(pg_temp.confirm(:'none')), '400 invalid_code', 'and is refused as they are');
SELECT pg_temp.send('gus@example.org', '333333', p_ip => '198.51.100.1') AS third \gset
SELECT is((SELECT count(*) FROM backend.auth_challenges WHERE challenge_id = :'third'), 1::bigint, 'another network gets one');
UPDATE backend.auth_challenges SET created_at = created_at - interval '1 second' WHERE email = 'gus@example.org' AND challenge_id <> :'third';
SELECT is(pg_temp.send('gus@example.org', p_ip => '198.51.100.9'), :'third'::uuid, 'for an address that had its mails a live challenge is used again');
SELECT is(
    (SELECT count(*) FROM backend.auth_challenges WHERE challenge_id = pg_temp.send('gus@example.org', p_ip => '203.0.113.1')), 0::bigint,
    'of the same network: another gets an id that opens nothing');
SELECT is((SELECT requests FROM backend.auth_challenges WHERE challenge_id = :'third'), 2, 'which is counted');
UPDATE backend.auth_challenges SET attempts = 5 WHERE challenge_id = :'third';
SELECT isnt(pg_temp.send('gus@example.org', p_ip => '198.51.100.1'), :'third'::uuid, 'one that can be tried');
UPDATE backend.auth_challenges SET attempts = 5 WHERE email = 'gus@example.org';
SELECT is(
    (SELECT count(*) FROM backend.auth_challenges WHERE challenge_id = pg_temp.send('gus@example.org', p_ip => '198.51.100.1')), 0::bigint,
    'and where there is none, an id that opens nothing');
SELECT is((SELECT count(*) FROM backend.auth_challenges WHERE email = 'gus@example.org'), 3::bigint, 'none of this is mailed');
SET LOCAL backend.code_mails_per_service = '3';
SET LOCAL backend.code_mails_per_quiet_network = '1';
SELECT pg_temp.send('una@example.org', p_ip => '192.0.2.3') AS none \gset
SELECT is((SELECT count(*) FROM backend.auth_challenges WHERE challenge_id = :'none'), 0::bigint, 'strangers can use up what there is for strangers');
SELECT pg_temp.send('bob@example.org') AS one \gset
SELECT is((SELECT count(*) FROM backend.auth_challenges WHERE challenge_id = :'one'), 1::bigint, 'and not what there is for members');
SET LOCAL backend.code_mails_per_service = '1';
SELECT is(pg_temp.send('bob@example.org'), :'one'::uuid, 'whose live challenge is used again when that is used up as well');
RESET backend.code_mails_per_network;
RESET backend.code_mails_per_address;
RESET backend.code_mails_per_service;
RESET backend.code_mails_per_quiet_network;
RESET backend.challenge_throttle_max;

-- Wrong codes: nobody is locked out by somebody elsewhere.
DELETE FROM backend.auth_budgets;
DELETE FROM backend.auth_challenges;
SET LOCAL backend.wrong_codes_per_network = '2';
SELECT pg_temp.send('ann@example.org') AS challenge \gset
SELECT pg_temp.confirm(:'challenge', '000000', p_ip => '192.0.2.1') FROM generate_series(1, 7) \g /dev/null
SELECT is(pg_temp.attempts(:'challenge'), 2, 'what comes from a network over its budget is not compared');
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge', p_ip => '192.0.2.1')), '400 invalid_code', 'not even when it is right');
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge', p_ip => '198.51.100.1')), '200', 'from elsewhere it is');
SET LOCAL backend.wrong_codes_per_address = '1';
SELECT pg_temp.send('ann@example.org') AS challenge \gset
SELECT pg_temp.confirm(:'challenge', '000000', p_ip => '203.0.113.1') \g /dev/null
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge', p_ip => '203.0.113.1')), '400 invalid_code', 'after too many in a row the network waits');
SELECT is(pg_temp.said(pg_temp.confirm(:'challenge', p_ip => '203.0.114.1')), '200', 'another has one of its own');
SELECT is_empty(
    format($$SELECT FROM backend.auth_budgets WHERE budget = 'wrong_codes_per_address' AND key_hash = %L$$, backend.budget_key('address', 'ann@example.org')),
    'and the row is at its end');
RESET backend.wrong_codes_per_network;
RESET backend.wrong_codes_per_address;

-- Confirming: where no user name is free, nothing happens at all.
SELECT pg_temp.send('fay@example.org') AS challenge \gset
CREATE OR REPLACE FUNCTION backend.user_name_random() RETURNS text LANGUAGE sql VOLATILE RETURN 'player-taken';
INSERT INTO backend.accounts (user_name, display_name) VALUES ('player-taken', 'x');
SELECT throws_ok(format('SELECT pg_temp.confirm(%L)', :'challenge'), 'GX503', 'unavailable', 'it is refused for now');
SELECT is(
    (SELECT consumed_at FROM backend.auth_challenges WHERE challenge_id = :'challenge'), NULL, 'and the code is good still');

DELETE FROM backend.accounts WHERE user_name = 'player-taken';
UPDATE backend.accounts SET permanent_block = false WHERE user_id = :'mallory';
SELECT is_empty('SELECT * FROM backend.invariants', 'nothing is wrong after all this');

SELECT * FROM finish();
ROLLBACK;
