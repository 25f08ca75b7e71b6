-- Test galaxy-backend:api/identities

BEGIN;
SELECT plan(69);
\ir ../helpers.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], result text, volatility text);
INSERT INTO functions VALUES
    ('identity_session_open', ARRAY['text', 'jsonb', 'text', 'bytea', 'text'], 'text', 'volatile'),
    ('identity_link', ARRAY['uuid', 'jsonb'], 'api.reply', 'volatile'), ('identity_unlink', ARRAY['uuid', 'text'], 'api.reply', 'volatile');
SELECT function_returns('api', name, arguments, result, format('%s() is %s', name, result)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

-- Signing in.
CREATE FUNCTION pg_temp.open(p_body jsonb, p_token text DEFAULT 'secret', p_country text DEFAULT NULL) RETURNS jsonb LANGUAGE sql
RETURN api.identity_session_open('telegram', p_body, p_token, sha256(p_token::bytea), p_country)::jsonb;
SET LOCAL ROLE backend_api;
SELECT pg_temp.open('{"subject": "4711", "display_name": "  Ann\u0065\u0301 ", "locale": "de-AT", "time_zone": "Europe/Berlin"}', 'first', 'AT') AS first \gset
RESET ROLE;
SELECT :'first'::jsonb ->> 'user_id' AS ann \gset
SELECT is(:'first'::jsonb - 'user_id' - 'device_session_id', '{"token": "first", "created": true}', 'who comes for the first time gets an account, a session and its token');
SELECT is(
    (SELECT to_jsonb(a) - 'user_id' - 'user_name' - 'created_at' - 'updated_at' - 'email_hash' - 'permanent_block' - 'deleted_at'
       FROM backend.accounts AS a WHERE a.user_id = :'ann'),
    jsonb_build_object('display_name', normalize(U&'Anne\0301', NFC), 'preferred_language', 'de', 'time_zone', 'Europe/Berlin',
                       'declared_country', 'AT', 'turn_reminder', 'off', 'email', NULL),
    'with what was said of them, the name trimmed and composed');
SELECT is(
    (SELECT to_jsonb(s) -> 'kind' || jsonb_build_array(s.status, s.client_public_key IS NULL, s.token_hash = sha256('first'))
       FROM backend.device_sessions AS s WHERE s.device_session_id = (:'first'::jsonb ->> 'device_session_id')::uuid),
    '["token", "active", true, true]', 'of the token the hash is kept');
SET LOCAL ROLE backend_api;
SELECT pg_temp.open('{"subject": "4711", "display_name": "Other", "time_zone": "Asia/Tokyo"}', 'second', 'JP') AS second \gset
SELECT is(:'second'::jsonb ->> 'user_id', :'ann', 'who comes again is the same person');
SELECT is(:'second'::jsonb -> 'created', 'false', 'and not new');
SELECT isnt(:'second'::jsonb ->> 'device_session_id', :'first'::jsonb ->> 'device_session_id', 'with one more session');
RESET ROLE;
SELECT is((SELECT array[display_name, declared_country, time_zone] FROM backend.accounts WHERE user_id = :'ann'), ARRAY[normalize(U&'Anne\0301', NFC), 'AT', 'Europe/Berlin'], 'what is said then changes nothing');
SET LOCAL ROLE backend_api;
SELECT pg_temp.open('{"subject": "4712"}', 'third') AS third \gset
RESET ROLE;
SELECT ok(
    (SELECT a.display_name = a.user_name AND a.time_zone = 'UTC' AND a.preferred_language = 'en' AND a.declared_country IS NULL
       FROM backend.accounts AS a WHERE a.user_id = (:'third'::jsonb ->> 'user_id')::uuid), 'who says nothing gets what everybody gets');
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT pg_temp.open('{"subject": "1", "time_zone": "Mars/Olympus"}')$$, 'GX400', 'invalid_request', 'a time zone is known');
SELECT lives_ok(format($$SELECT pg_temp.open('{"subject": "4711", "display_name": "%s"}', 'known')$$, repeat('x', 65)), 'who is known gets in whatever their name is');
CREATE FUNCTION pg_temp.called(p_subject text, p_name text) RETURNS text LANGUAGE plpgsql SECURITY INVOKER AS $$
BEGIN
    PERFORM pg_temp.open(jsonb_build_object('subject', p_subject, 'display_name', p_name), p_subject);
    RETURN p_subject;
END;
$$;
SELECT pg_temp.called('named-' || n, name)
  FROM unnest(ARRAY[E'\u200b', E'\u2060', E'\u3164', E'\u2800', E'\u180e', E'\u00ad', E'\ufeff', E'\U000e0041', '   ', E'a\u202eb', repeat('x', 65)]) WITH ORDINALITY AS t (name, n) \g /dev/null
SELECT pg_temp.called('seen-' || n, name) FROM unnest(ARRAY[E'\u00a0Bob', E'Bob\u00a0', E'\u3000 Bob\u2003']) WITH ORDINALITY AS t (name, n) \g /dev/null
SELECT pg_temp.called('long', format(' %s ', repeat('x', 64))) \g /dev/null
RESET ROLE;
SELECT is(
    (SELECT count(*) FROM backend.accounts AS a JOIN backend.identities AS i USING (user_id) WHERE i.subject ~ '^named-' AND a.display_name = a.user_name), 11::bigint,
    'whose name may not be, or is not seen, is called as their user name');
SELECT results_eq(
    $$SELECT DISTINCT a.display_name FROM backend.accounts AS a JOIN backend.identities AS i USING (user_id) WHERE i.subject ~ '^seen-'$$, $$VALUES ('Bob')$$,
    'every kind of space around a name goes');
SELECT is((SELECT a.display_name FROM backend.accounts AS a JOIN backend.identities AS i USING (user_id) WHERE i.subject = 'long'), repeat('x', 64), 'and does not count');
SELECT is((SELECT count(*) FROM backend.identities WHERE subject = '1'), 0::bigint, 'what was refused left nothing');
INSERT INTO backend.sanction_records (user_id, code, action, reason, actor) VALUES (:'ann', 'login_block', 'apply', 'x', 'root') RETURNING sanction_record_id AS sanction \gset
INSERT INTO backend.sanction_active (user_id, code, sanction_record_id, reason) VALUES (:'ann', 'login_block', :'sanction', 'x');
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT pg_temp.open('{"subject": "4711"}', 'x')$$, 'GX403', 'sanctioned', 'who may not sign in does not');
RESET ROLE;
UPDATE backend.sanction_records SET expires_at = backend.now();
UPDATE backend.sanction_active SET expires_at = backend.now();
SET LOCAL ROLE backend_api;
SELECT lives_ok($$SELECT pg_temp.open('{"subject": "4711"}', 'x')$$, 'until it is over');
RESET ROLE;
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'ann';
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT pg_temp.open('{"subject": "4711"}', 'y')$$, 'GX403', 'account_blocked', 'who is blocked for good never does');
RESET ROLE;
UPDATE backend.accounts SET permanent_block = false WHERE user_id = :'ann';
SELECT backend.account_delete(:'ann') \g /dev/null
DELETE FROM backend.identities WHERE user_id = :'ann';
SET LOCAL ROLE backend_api;
SELECT pg_temp.open('{"subject": "4711"}', 'z') AS anew \gset
SELECT is(:'anew'::jsonb -> 'created', 'true', 'whose account was deleted gets a new one');
SELECT isnt(:'anew'::jsonb ->> 'user_id', :'ann', 'which is another');
RESET ROLE;
SET LOCAL backend.username_max_retries = '1';
CREATE OR REPLACE FUNCTION backend.user_name_random() RETURNS text LANGUAGE sql VOLATILE SECURITY INVOKER
AS $$SELECT user_name FROM backend.accounts LIMIT 1$$;
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT pg_temp.open('{"subject": "99"}', 'u')$$, 'GX503', 'unavailable', 'without a free user name it is to be tried again');
RESET ROLE;

-- Linking.
ALTER FUNCTION backend.user_name_random() RENAME TO user_name_broken;
CREATE FUNCTION backend.user_name_random() RETURNS text LANGUAGE sql VOLATILE AS $$SELECT 'player-' || left(md5(random()::text), 8)$$;
SELECT a.user_id AS bob FROM backend.account_create('email', 'bob@example.org', 'bob@example.org', 'en', 'UTC', NULL) AS a \gset
SELECT a.user_id AS cid FROM backend.account_create('telegram', 'cid', NULL, 'en', 'UTC', NULL) AS a \gset
SELECT a.user_id AS gone FROM backend.account_create('telegram', 'gone', NULL, 'en', 'UTC', NULL) AS a \gset
DELETE FROM backend.identities WHERE user_id = :'gone';
SELECT backend.account_delete(:'gone') \g /dev/null
INSERT INTO backend.blocked_emails (email, actor) VALUES ('blocked@example.org', 'root');
CREATE FUNCTION pg_temp.link(p_user_id uuid, p_provider text, p_subject text) RETURNS api.reply LANGUAGE sql
RETURN api.identity_link(p_user_id, jsonb_build_object('provider', p_provider, 'subject', p_subject));
CREATE TEMPORARY VIEW ways AS SELECT user_id, array_agg(provider || ':' || subject ORDER BY provider) AS all FROM backend.identities GROUP BY user_id;
SET LOCAL ROLE backend_api;
SELECT is(
    pg_temp.link(:'bob', 'telegram', '815'),
    ROW(201, '{"provider" : "telegram", "subject" : "815"}', format('/api/v1/internal/users/%s/account-internal', :'bob'))::api.reply, 'a person gets one more way in');
SELECT is((pg_temp.link(:'bob', 'telegram', '815')).status, 201, 'again is the same');
SELECT throws_ok(format($$SELECT pg_temp.link(%L, 'telegram', '816')$$, :'bob'), 'GX409', 'conflict', 'there is one of each kind');
SELECT throws_ok(format($$SELECT pg_temp.link(%L, 'telegram', '815')$$, :'cid'), 'GX409', 'identity_taken', 'a way in leads to one person');
SELECT throws_ok(format($$SELECT pg_temp.link(%L, 'email', 'BOB@example.org')$$, :'cid'), 'GX409', 'identity_taken', 'however it is written');
SELECT throws_ok(format($$SELECT pg_temp.link(%L, 'email', 'nobody')$$, :'cid'), 'GX400', 'invalid_request', 'an address is one');
SELECT throws_ok(format($$SELECT pg_temp.link(%L, 'telegram', 'a b')$$, :'bob'), 'GX400', 'invalid_request', 'and an id has no spaces');
SELECT throws_ok(format($$SELECT pg_temp.link(%L, 'email', 'Blocked@Example.org ')$$, :'cid'), 'GX400', 'email_blocked', 'a blocked address is refused');
SELECT throws_ok(format($$SELECT pg_temp.link(%L, 'telegram', '817')$$, :'gone'), 'GX409', 'conflict', 'who is gone gets none');
SELECT throws_ok($$SELECT pg_temp.link(gen_random_uuid(), 'telegram', '817')$$, 'GX404', 'account_not_found', 'nor does nobody');
SELECT is((pg_temp.link(:'cid', 'email', ' Cid@Example.ORG')).body::jsonb ->> 'subject', 'cid@example.org', 'an address is put in its form');
RESET ROLE;
SELECT is((SELECT email FROM backend.accounts WHERE user_id = :'cid'), 'cid@example.org', 'and is the account''s');

-- Whoever is blocked changes no way in: with the address free they would come back as somebody else.
SELECT a.user_id AS mal FROM backend.account_create('email', 'mal@example.org', 'mal@example.org', 'en', 'UTC', NULL) AS a \gset
INSERT INTO backend.identities (provider, subject, user_id) VALUES ('telegram', 'mal', :'mal');
SELECT backend.sanction_apply(:'mal', 'login_block', 'x', 'root', NULL) \g /dev/null
SET LOCAL ROLE backend_api;
SELECT throws_ok(format($$SELECT api.identity_unlink(%L, 'email')$$, :'mal'), 'GX403', 'sanctioned', 'who may not sign in frees no address');
SELECT throws_ok(format($$SELECT pg_temp.link(%L, 'email', 'other@example.org')$$, :'mal'), 'GX403', 'sanctioned', 'and gets no other');
SELECT is((pg_temp.link(:'mal', 'email', 'mal@example.org')).status, 201, 'what is there is linked still');
RESET ROLE;
SELECT backend.sanction_apply(:'mal', 'permanent_block', 'x', 'root', NULL) \g /dev/null
SET LOCAL ROLE backend_api;
SELECT throws_ok(format($$SELECT api.identity_unlink(%L, 'telegram')$$, :'mal'), 'GX403', 'account_blocked', 'nor does who is blocked for good');
SELECT throws_ok(format($$SELECT pg_temp.link(%L, 'telegram', '815')$$, :'mal'), 'GX403', 'account_blocked', 'who is not told who has a way in');
SELECT is((pg_temp.link(:'mal', 'telegram', 'mal')).status, 201, 'what is there is linked still');
RESET ROLE;
SELECT is((SELECT w.all FROM ways AS w WHERE w.user_id = :'bob'), ARRAY['email:bob@example.org', 'telegram:815'], 'nothing else was linked');
SELECT is(
    pg_temp.violated(format($$INSERT INTO backend.identities VALUES ('email', 'x@example.org', %L)$$, :'cid')), 'identities_one_per_person_and_provider', 'the table says so too');

-- Unlinking.
SET LOCAL ROLE backend_api;
SELECT is(api.identity_unlink(:'bob', 'telegram'), ROW(204, NULL, NULL)::api.reply, 'a way in is taken away');
SELECT throws_ok(format($$SELECT api.identity_unlink(%L, 'telegram')$$, :'bob'), 'GX404', 'identity_not_found', 'what is not there cannot be');
SELECT throws_ok(format($$SELECT api.identity_unlink(%L, 'email')$$, :'bob'), 'GX409', 'last_identity', 'nor the last one');
SELECT throws_ok(format($$SELECT api.identity_unlink(%L, 'email')$$, :'gone'), 'GX409', 'conflict', 'nor any of who is gone');
SELECT throws_ok($$SELECT api.identity_unlink(gen_random_uuid(), 'email')$$, 'GX404', 'account_not_found', 'nor of nobody');
SELECT api.email_code_send(jsonb_build_object('email', e), '123456', sha256('x'), NULL) FROM unnest(ARRAY['cid@example.org', 'bob@example.org']) AS e \g /dev/null
SELECT is((api.identity_unlink(:'cid', 'email')).status, 204, 'an address too');
RESET ROLE;
SELECT results_eq(
    $$SELECT r.address COLLATE "C", d.status, p.body_text IS NULL FROM backend.mail_deliveries AS d JOIN backend.mail_recipients AS r USING (delivery_id) JOIN backend.mail_payloads AS p USING (payload_id)
       ORDER BY d.status$$,
    format($$VALUES (%L COLLATE "C", 'expired', true), ('bob@example.org', 'pending', false)$$, :'cid' || '@deleted.invalid'), 'the codes that were mailed to it are forgotten');
SELECT results_eq('SELECT email FROM backend.auth_challenges', $$VALUES ('bob@example.org')$$, 'and open nothing');
SELECT is((SELECT email FROM backend.accounts WHERE user_id = :'cid'), NULL, 'and is the account''s no more');
SELECT is((SELECT email FROM backend.accounts WHERE user_id = :'bob'), 'bob@example.org', 'another''s stays');
SELECT is_empty('SELECT * FROM backend.invariants_accounts', 'all of it holds together');

SELECT * FROM finish();
ROLLBACK;
