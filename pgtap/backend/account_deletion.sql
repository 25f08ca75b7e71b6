-- Test galaxy-backend:backend/account_deletion

BEGIN;
SELECT plan(41);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
SELECT has_table('backend', 'deletion_rules', 'there is deletion_rules');
SELECT col_is_pk('backend', 'deletion_rules', ARRAY['table_name', 'column_name'], 'deletion_rules has its key');
SELECT volatility_is('backend', f, 'volatile', format('%s() is VOLATILE', f)) FROM unnest(ARRAY['ways_in_lock', 'mail_forget', 'account_delete']) AS f;
SELECT volatility_is('backend', 'code_mails', 'stable', 'code_mails() is STABLE');
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.account_delete(gen_random_uuid())$$, '42501', NULL, 'backend_api deletes nobody but through its door');
RESET ROLE;
SELECT is(pg_temp.violated(format('INSERT INTO backend.deletion_rules (table_name, column_name, holds, rule, description) VALUES (''x'', ''y'', %L, %L, ''z'')', h, r)), c, d)
  FROM (VALUES ('something', 'keep', 'deletion_rules_holds_is_known', 'what a column holds is known'), ('person', 'forget', 'deletion_rules_rule_is_known', 'what happens to it is known'),
               ('data', 'delete', 'deletion_rules_rows_are_found_by_person_or_address', 'rows are found by something')) AS t(h, r, c, d);

-- The declarations are complete: every column that leads to a person, from the catalog, is declared, and nothing else is.
CREATE TEMPORARY VIEW leads AS
SELECT c.relname::text AS table_name, a.attname::text AS column_name,
       EXISTS (SELECT FROM pg_constraint AS f WHERE f.conrelid = c.oid AND f.contype = 'f' AND f.confrelid = 'backend.accounts'::regclass
                  AND f.conkey = ARRAY[a.attnum])
       OR (c.relname = 'accounts' AND a.attname = 'user_id') OR a.attname ~ '(^|_)user_id$' AS is_person,
       -- By what things are called here.
       a.attname ~ '(^|_)(e?mail|address)$' AND NOT a.attname ~ '^is_' AS is_address,
       (c.relname = 'accounts' AND a.attname NOT IN ('user_id', 'email', 'permanent_block', 'deleted_at', 'created_at', 'updated_at'))
       OR (c.relname = 'identities' AND a.attname = 'subject')
       OR (c.relname = 'auth_challenges' AND a.attname = 'source_hash')
       OR (c.relname = 'idempotency_keys' AND a.attname = 'caller')
       OR (c.relname = 'device_sessions' AND a.attname ~ '_(key|hash)$')
       OR (c.relname ~ '^mail_' AND c.relname <> 'mail_templates' AND a.attname ~ '^(subject|body|error|reason)')
       OR (c.relname IN ('notification_routes', 'notification_dead_letters') AND a.attname ~ '(error|reason)$') AS is_data
  FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'backend'::regnamespace AND c.relkind IN ('r', 'p');
SELECT cmp_ok((SELECT count(*) FROM leads WHERE is_person), '>=', 20::bigint, 'there are columns that lead to people');
SELECT is_empty(
    'SELECT table_name, column_name FROM leads WHERE is_person OR is_address OR is_data EXCEPT SELECT table_name, column_name FROM backend.deletion_rules',
    'what a deletion does to every column that leads to a person is declared');
SELECT is_empty(
    $$SELECT r.table_name, r.column_name, r.holds FROM backend.deletion_rules AS r LEFT JOIN leads AS l USING (table_name, column_name)
       WHERE NOT coalesce(CASE r.holds WHEN 'person' THEN l.is_person WHEN 'address' THEN l.is_address ELSE l.is_data END, false)$$,
    'and nothing is declared that is not there, or is something else');
SELECT is_empty(
    $$SELECT r.table_name, r.column_name FROM backend.deletion_rules AS r JOIN pg_attribute AS a ON a.attrelid = ('backend.' || r.table_name)::regclass AND a.attname = r.column_name
       WHERE r.rule = 'delete' AND a.atttypid <> CASE r.holds WHEN 'person' THEN 'uuid'::regtype ELSE 'text'::regtype END$$,
    'rows are deleted by an id or an address');

-- A person with everything, and one beside them.
SELECT pg_temp.person('ann', 'monthly') AS ann, pg_temp.person('bob') AS bob \gset
UPDATE backend.accounts SET display_name = 'Ann of Green Gables', preferred_language = 'de', time_zone = 'Europe/Berlin', declared_country = 'DE' WHERE user_id = :'ann';
INSERT INTO backend.identities (provider, subject, user_id) VALUES ('telegram', '471147114711', :'ann');
INSERT INTO backend.device_sessions (user_id, kind, client_public_key) VALUES (:'ann', 'key', sha256('ann')), (:'ann', 'key', sha256('ann too')), (:'bob', 'key', sha256('bob'));
INSERT INTO backend.device_sessions (user_id, kind, token_hash) VALUES (:'ann', 'token', sha256('token'));
SELECT backend.session_revoke((SELECT device_session_id FROM backend.device_sessions WHERE client_public_key = sha256('ann too')), 'logout') \g /dev/null
SELECT api.email_code_send(jsonb_build_object('email', e), '123456', sha256('x'), NULL) FROM unnest(ARRAY['ann@example.org', 'ann@example.org', 'bob@example.org']) AS e \g /dev/null
SELECT pg_temp.game(:'ann', '{"race_name": "Alphas", "game_name": "Friday"}') AS game, pg_temp.game(:'bob', '{"race_name": "Betas"}') AS other \gset
SELECT api.invite_create(:'bob', :'other', jsonb_build_object('invited_user_id', :'ann'), NULL, NULL) \g /dev/null
SELECT backend.mail_enqueue('game.started', k, ARRAY['ann@example.org'], '{"game_name": "Friday"}', :'ann') FROM unnest(ARRAY['waits', 'was sent', 'is dead']) AS k \g /dev/null
SELECT backend.mail_enqueue('game.started', 'bob', ARRAY['bob@example.org'], '{"game_name": "Friday"}', :'bob') \g /dev/null
SELECT backend.mail_enqueue('mail.dead_lettered', 'to the operators', ARRAY['ann@example.org'], '{"delivery_id": "x", "template_id": "y"}') \g /dev/null
UPDATE backend.mail_deliveries SET status = 'sent' WHERE idempotency_key = 'was sent';
INSERT INTO backend.idempotency_keys (caller, operation, request_key, request_hash, status, body, location)
VALUES (:'ann', 'game_create', 'k', sha256(''), 201, '{"race_name": "Alphas"}', NULL), (:'bob', 'game_create', 'k', sha256(''), 201, '{}', NULL),
       ('internal', 'identity_link', 'of ann', sha256(''), 201, '{"subject": "471147114711"}', '/api/v1/internal/users/' || :'ann' || '/identities/telegram'),
       ('internal', 'identity_link', 'of bob', sha256(''), 201, '{"subject": "4"}', '/api/v1/internal/users/' || :'bob' || '/identities/telegram');
INSERT INTO backend.mail_attempts (delivery_id, attempt_no, outcome, error)
SELECT delivery_id, 1, CASE idempotency_key WHEN 'was sent' THEN 'sent' ELSE 'permanent' END, '550 <ann@example.org> unknown' FROM backend.mail_deliveries WHERE idempotency_key IN ('was sent', 'is dead');
UPDATE backend.mail_deliveries SET status = 'dead_lettered' WHERE idempotency_key = 'is dead';
INSERT INTO backend.mail_dead_letters (delivery_id, reason) SELECT delivery_id, '550 <ann@example.org> unknown' FROM backend.mail_deliveries WHERE idempotency_key = 'is dead';
UPDATE backend.mail_templates SET subject = '{{nothing}}' WHERE template_id = 'game.finished';
SELECT backend.notification_submit('game.finished', k, :'ann', jsonb_build_object('game_id', :'game')) FROM unnest(ARRAY['once', 'twice']) AS k \g /dev/null
UPDATE backend.notification_routes SET last_error = 'ann@example.org' WHERE status = 'retrying';
SET LOCAL backend.notification_max_attempts = '1';
SELECT backend.notification_route_settle(max(route_id::text)::uuid, 'retrying', 'ann@example.org') FROM backend.notification_routes WHERE status = 'retrying' \g /dev/null
INSERT INTO backend.notification_opt_outs (user_id, kind, channel) VALUES (:'ann', 'game.started', 'push'), (:'bob', 'game.started', 'push');
UPDATE backend.accounts SET turn_reminder = 'daily' WHERE user_id = :'ann';
SELECT count(*) AS events FROM backend.push_pending WHERE reason = 'account_deleted' \gset
SELECT lives_ok(format('SELECT backend.ways_in_lock(%L)', :'ann'), 'ways in are locked');
SELECT is((SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted) >= 2, true, 'each of them');
SELECT lives_ok(format('SELECT backend.account_delete(%L)', :'ann'), 'an account is deleted');

-- What is left.
SELECT results_eq(
    format('SELECT deleted_at, email, email_hash, display_name, preferred_language, time_zone, turn_reminder, declared_country FROM backend.accounts WHERE user_id = %L', :'ann'),
    $$VALUES (backend.now(), NULL, sha256('ann@example.org'), 'deleted', 'en', 'UTC', 'off', NULL)$$, 'the row says nothing of them');
SELECT matches((SELECT user_name FROM backend.accounts WHERE user_id = :'ann'), '^player-', 'but a random name');
SELECT is_empty(format('SELECT FROM backend.identities WHERE user_id = %L', :'ann'), 'there is no way in');
SELECT results_eq(
    format('SELECT status, revoke_reason COLLATE "C", client_public_key, token_hash, count(*) FROM backend.device_sessions WHERE user_id = %L GROUP BY 1, 2, 3, 4 ORDER BY 2', :'ann'),
    $$VALUES ('revoked', 'account_deleted' COLLATE "C", NULL::bytea, NULL::bytea, 2::bigint), ('revoked', 'logout', NULL, NULL, 1)$$,
    'every session is revoked and has lost its secret');
SELECT is((SELECT count(*) FROM backend.push_pending WHERE reason = 'account_deleted') - :events, 1::bigint, 'the gateways are told, once');
SELECT is_empty($$SELECT FROM backend.auth_challenges WHERE email = 'ann@example.org'$$, 'there is no code');
SELECT results_eq(
    format($$SELECT d.template_id COLLATE "C", d.status, p.subject, p.body_text, p.body_html, r.address, count(*)
               FROM backend.mail_deliveries AS d JOIN backend.mail_payloads AS p USING (payload_id) JOIN backend.mail_recipients AS r USING (delivery_id)
              WHERE r.address = '%s@deleted.invalid' GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2$$, :'ann'),
    format($$VALUES ('auth.login_code' COLLATE "C", 'expired', 'erased', NULL::text, NULL::text, '%1$s@deleted.invalid', 2::bigint),
                    ('game.started', 'cancelled', 'erased', NULL, NULL, '%1$s@deleted.invalid', 1), ('game.started', 'dead_lettered', 'erased', NULL, NULL, '%1$s@deleted.invalid', 1),
                    ('game.started', 'sent', 'erased', NULL, NULL, '%1$s@deleted.invalid', 1), ('lobby.invite.received', 'cancelled', 'erased', NULL, NULL, '%1$s@deleted.invalid', 1)$$, :'ann'),
    'no mail goes out, and none says anything');
SELECT results_eq('SELECT error, count(*) FROM backend.mail_attempts GROUP BY 1', 'VALUES (NULL::text, 2::bigint)', 'nor does what relays answered');
SELECT results_eq('SELECT reason FROM backend.mail_dead_letters', $$VALUES ('erased')$$, 'nor does a dead letter');
SELECT is_empty(
    format($$SELECT FROM backend.notification_routes JOIN backend.notifications USING (notification_id)
              WHERE user_id = %L AND (status NOT IN ('delivered', 'cancelled', 'dead_lettered') OR last_error IS NOT NULL)$$, :'ann'), 'what was to be told is not');
SELECT results_eq('SELECT reason FROM backend.notification_dead_letters', $$VALUES ('erased')$$, 'nor does a route that was given up say anything');
SELECT results_eq('SELECT user_id FROM backend.notification_opt_outs', format('VALUES (%L::uuid)', :'bob'), 'what they wanted to be told is forgotten');
SELECT is(pg_temp.state(:'game'), 'cancelled', 'the lobby is released');
SELECT is((SELECT string_agg(status, ',') FROM backend.invites WHERE invited_user_id = :'ann'), 'revoked', 'all of it');

SELECT bag_eq('SELECT caller, request_key FROM backend.idempotency_keys', format($$VALUES (%L, 'k'), ('internal', 'of bob')$$, :'bob'), 'no answer to them or about them is kept');

-- What is not theirs.
SELECT is((SELECT count(*) FROM backend.device_sessions WHERE user_id = :'bob' AND status = 'active' AND client_public_key IS NOT NULL), 1::bigint, 'somebody else''s sessions go on');
SELECT is((SELECT count(*) FROM backend.auth_challenges), 1::bigint, 'their code is good');
SELECT results_eq(
    $$SELECT d.idempotency_key COLLATE "C", d.status FROM backend.mail_deliveries AS d JOIN backend.mail_recipients AS r USING (delivery_id)
       WHERE r.address ~ 'example.org' AND d.template_id <> 'auth.login_code' ORDER BY 1$$,
    $$VALUES ('bob' COLLATE "C", 'pending'), ('to the operators', 'pending')$$, 'their mail goes out, and that of the operators');
SELECT is((SELECT count(*) FROM backend.mail_deliveries WHERE template_id = 'auth.login_code' AND status = 'pending'), 1::bigint, 'their code too');

-- The address is free.
SELECT isnt(
    (SELECT a.user_id FROM backend.account_create('email', 'ann@example.org', 'ann@example.org', 'en', 'UTC', NULL) AS a), :'ann'::uuid,
    'somebody new registers with the address');
SELECT backend.account_delete(user_id) FROM backend.accounts WHERE email = 'ann@example.org' \g /dev/null
SELECT is((SELECT count(*) FROM backend.accounts WHERE email_hash = sha256('ann@example.org')), 2::bigint, 'and goes again');
SELECT pg_temp.sanction(:'bob', 'private_game_manage_block') \g /dev/null
SELECT lives_ok(format('SELECT backend.account_delete(%L)', :'bob'), 'a sanction keeps nobody from going');
SELECT is_empty('SELECT * FROM backend.invariants WHERE invariant NOT LIKE ''sent_mail%''', 'nothing is wrong after all this');
SELECT is_empty(format('SELECT FROM backend.entitlement_snapshots WHERE user_id = %L AND tier <> ''monthly''', :'ann'), 'what was granted stays in the books');

SELECT * FROM finish();
ROLLBACK;
