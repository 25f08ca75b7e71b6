-- Test galaxy-backend:backend/accounts

BEGIN;
SELECT plan(159);
\ir ../helpers.psql

-- Attributes.
SELECT has_table('backend', t, format('there is %s', t))
  FROM unnest(ARRAY['time_zones', 'accounts', 'identities', 'entitlement_tiers', 'entitlement_records', 'entitlement_snapshots',
                    'sanction_records', 'sanction_active', 'limit_records', 'limit_active']) AS t;
SELECT has_domain('backend', d, format('there is the domain %s', d)) FROM unnest(ARRAY['sanction_code', 'limit_code']) AS d;
SELECT fk_ok('backend', t, c, 'backend', r, k, format('%s.%s is of %s', t, c, r))
  FROM (VALUES
    ('accounts', 'time_zone', 'time_zones', 'time_zone'),
    ('identities', 'user_id', 'accounts', 'user_id'),
    ('entitlement_records', 'user_id', 'accounts', 'user_id'),
    ('entitlement_records', 'tier', 'entitlement_tiers', 'tier'),
    ('entitlement_snapshots', 'user_id', 'accounts', 'user_id'),
    ('entitlement_snapshots', 'entitlement_record_id', 'entitlement_records', 'entitlement_record_id'),
    ('entitlement_snapshots', 'tier', 'entitlement_tiers', 'tier'),
    ('sanction_records', 'user_id', 'accounts', 'user_id'),
    ('sanction_active', 'user_id', 'accounts', 'user_id'),
    ('sanction_active', 'sanction_record_id', 'sanction_records', 'sanction_record_id'),
    ('limit_records', 'user_id', 'accounts', 'user_id'),
    ('limit_active', 'user_id', 'accounts', 'user_id'),
    ('limit_active', 'limit_record_id', 'limit_records', 'limit_record_id')
  ) AS t(t, c, r, k);
SELECT col_is_pk('backend', t, c, format('%s has its key', t))
  FROM (VALUES ('accounts', ARRAY['user_id']), ('identities', ARRAY['provider', 'subject']), ('entitlement_snapshots', ARRAY['user_id']),
               ('sanction_active', ARRAY['user_id', 'code']), ('limit_active', ARRAY['user_id', 'code'])) AS t(t, c);
SELECT col_not_null('backend', t, c, format('%s.%s is always told', t, c))
  FROM (VALUES
    ('accounts', 'user_name'), ('accounts', 'display_name'), ('accounts', 'preferred_language'), ('accounts', 'time_zone'),
    ('accounts', 'permanent_block'), ('identities', 'user_id'), ('entitlement_tiers', 'is_paid'),
    ('entitlement_tiers', 'max_registered_race_names'), ('entitlement_tiers', 'max_owned_private_games'),
    ('entitlement_tiers', 'max_pending_applications'), ('entitlement_tiers', 'max_active_memberships'),
    ('sanction_records', 'action'), ('limit_records', 'action'),
    ('entitlement_records', 'user_id'), ('entitlement_records', 'tier'), ('entitlement_records', 'source'),
    ('entitlement_records', 'reason_code'), ('entitlement_records', 'starts_at'),
    ('entitlement_snapshots', 'entitlement_record_id'), ('entitlement_snapshots', 'tier'), ('entitlement_snapshots', 'starts_at'),
    ('sanction_records', 'user_id'), ('sanction_records', 'code'), ('sanction_records', 'reason'), ('sanction_records', 'actor'),
    ('sanction_active', 'sanction_record_id'), ('sanction_active', 'reason'),
    ('limit_records', 'user_id'), ('limit_records', 'code'), ('limit_records', 'reason'), ('limit_records', 'actor'),
    ('limit_active', 'limit_record_id'), ('limit_active', 'value')) AS t(t, c);
SELECT has_index('backend', 'entitlement_snapshots', 'entitlement_snapshots_by_change', ARRAY['changes_at'], 'what changes is found');
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('is_over', 'stable'), ('is_sanctioned', 'stable'), ('account_require', 'stable'), ('user_name_random', 'volatile'),
               ('identity_lock', 'volatile'), ('account_find', 'volatile'), ('account_create', 'volatile'), ('account_json', 'stable')) AS t(f, v);

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM backend.accounts', '42501', NULL, 'backend_api does not see the accounts');
SELECT throws_ok($$SELECT backend.account_create('email', 'a@b.cd', 'a@b.cd', 'en', 'UTC', NULL)$$, '42501', NULL,
    'backend_api makes no account but through its door');
RESET ROLE;

-- The facts.
SELECT results_eq(
    $$SELECT tier COLLATE "C", is_paid, duration, max_registered_race_names, max_owned_private_games, max_pending_applications, max_active_memberships
        FROM backend.entitlement_tiers ORDER BY tier COLLATE "C"$$,
    $$VALUES ('free' COLLATE "C", false, NULL::interval, 1, 1, 3, 3), ('monthly', true, '30 days', 5, 3, 10, 10),
             ('permanent', true, NULL, 5, 3, 10, 10), ('yearly', true, '365 days', 5, 3, 10, 10)$$,
    'the tiers are as the rules say');
SELECT cmp_ok((SELECT count(*) FROM backend.time_zones), '>', 400::bigint, 'the time zones are known');
SELECT is_empty(
    $$SELECT z FROM unnest(ARRAY['UTC', 'Europe/Berlin', 'America/Argentina/Buenos_Aires', 'Asia/Kolkata']) AS z
      EXCEPT SELECT time_zone FROM backend.time_zones$$, 'the usual ones among them');
SELECT is_empty(
    $$SELECT time_zone FROM backend.time_zones WHERE backend.now() AT TIME ZONE time_zone IS NULL OR time_zone ~ '^(posix|right)/'$$,
    'and only those that Postgres reckons with');

-- A new account.
SELECT a.user_id AS ann, a.user_name AS ann_name, a.created_at AS ann_since
  FROM backend.account_create('email', 'ann@example.org', 'ann@example.org', 'de', 'Europe/Berlin', 'DE') AS a \gset
SELECT a.user_id AS bob FROM backend.account_create('telegram', '4711', NULL, NULL, 'UTC', NULL) AS a \gset
SELECT results_eq(
    format('SELECT email, preferred_language, time_zone, declared_country, permanent_block, deleted_at, created_at, display_name = user_name
              FROM backend.accounts WHERE user_id = %L', :'ann'),
    $$VALUES ('ann@example.org', 'de', 'Europe/Berlin', 'DE', false, NULL::timestamptz, transaction_timestamp(), true)$$,
    'a new account has what it was given, and its user name as its display name');
SELECT results_eq(
    format('SELECT email, preferred_language, declared_country FROM backend.accounts WHERE user_id = %L', :'bob'),
    $$VALUES (NULL, 'en', NULL)$$, 'without a language it is en, and an address is not needed');
SELECT results_eq(
    format('SELECT provider, subject FROM backend.identities WHERE user_id = %L', :'ann'), $$VALUES ('email', 'ann@example.org')$$,
    'it has its way in');
SELECT results_eq(
    format('SELECT r.tier, r.source, r.reason_code, r.actor, r.starts_at, r.ends_at, s.tier, s.starts_at, s.ends_at
              FROM backend.entitlement_records AS r JOIN backend.entitlement_snapshots AS s USING (entitlement_record_id)
             WHERE s.user_id = %L', :'ann'),
    $$VALUES ('free', 'registration', 'registration', NULL::text, transaction_timestamp(), NULL::timestamptz,
              'free', transaction_timestamp(), NULL::timestamptz)$$,
    'and the free tier, recorded and in force');
SELECT matches(:'ann_name'::text, '^player-[0-9abcdefghjkmnpqrstvwxyz]{8}$', 'its user name is player- and eight of Crockford''s characters');
SELECT is_empty(
    $$SELECT n FROM (SELECT backend.user_name_random() AS n FROM generate_series(1, 1000)) AS r
       WHERE n !~ '^player-[0-9abcdefghjkmnpqrstvwxyz]{8}$'$$, 'every user name is of that form');
SELECT is(
    (SELECT count(DISTINCT c)
       FROM (SELECT backend.user_name_random() AS n FROM generate_series(1, 1000)) AS r, regexp_split_to_table(substr(r.n, 8), '') AS c),
    32::bigint, 'each of the thirty-two characters comes');
SELECT is(
    pg_temp.violated($$SELECT backend.account_create('email', 'ann@example.org', NULL, 'en', 'UTC', NULL)$$), 'identities_pkey',
    'a way in leads to one account');
SELECT is(
    pg_temp.violated($$SELECT backend.account_create('telegram', '1', 'ann@example.org', 'en', 'UTC', NULL)$$),
    'accounts_email_is_unique_among_the_live', 'an address belongs to one live account');

-- A name that is taken is tried again, so often and no more.
CREATE SEQUENCE pg_temp.tries;
CREATE OR REPLACE FUNCTION backend.user_name_random() RETURNS text LANGUAGE sql VOLATILE
RETURN CASE WHEN nextval('pg_temp.tries') < 4 THEN 'player-taken' ELSE 'player-free' END;
INSERT INTO backend.accounts (user_name, display_name) VALUES ('player-taken', 'x') RETURNING user_id AS taken \gset
SELECT set_config('backend.username_max_retries', '3', true) \gset ignored_
SELECT throws_ok(
    $$SELECT backend.account_create('email', 'c@example.org', NULL, 'en', 'UTC', NULL)$$, 'GX503', 'unavailable',
    'where no user name is free after so many tries, it is refused');
SELECT is(nextval('pg_temp.tries'), 4::bigint, 'it was tried three times');
SELECT setval('pg_temp.tries', 1, false) \gset ignored_
SELECT set_config('backend.username_max_retries', '4', true) \gset ignored_
SELECT is(
    (SELECT a.user_name FROM backend.account_create('email', 'c@example.org', NULL, 'en', 'UTC', NULL) AS a), 'player-free',
    'a name that is free is found within the tries');
DELETE FROM backend.accounts WHERE user_id = :'taken';

-- Finding.
SELECT is((backend.account_find('email', 'ann@example.org')).user_id, :'ann'::uuid, 'an account is found by its way in');
SELECT is((backend.account_find('telegram', 'ann@example.org')).user_id, NULL, 'but not by another provider''s');
SELECT is((backend.account_find('email', 'nobody@example.org')).user_id, NULL, 'nobody is nobody');
SELECT lives_ok($$SELECT backend.identity_lock('email', 'ann@example.org')$$, 'a way in is locked');
SELECT is(
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), 1::bigint, 'to the end of the transaction');

-- Ends.
SELECT is(backend.is_over(NULL), false, 'without an end nothing is over');
SELECT is(backend.is_over(backend.now()), true, 'an end that is now has come');
SELECT is(backend.is_over(backend.now() - interval '1 microsecond'), true, 'an end that was has come');
SELECT is(backend.is_over(backend.now() + interval '1 microsecond'), false, 'an end that will be has not');

-- Sanctions.
CREATE FUNCTION pg_temp.sanction(p_user_id uuid, p_code text, p_expires_at timestamptz DEFAULT NULL) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    WITH r AS (
        INSERT INTO backend.sanction_records (user_id, code, action, reason, actor, expires_at)
        VALUES (p_user_id, p_code, 'apply', 'reason', 'admin', p_expires_at) RETURNING sanction_record_id)
    INSERT INTO backend.sanction_active (user_id, code, sanction_record_id, reason, expires_at)
    SELECT p_user_id, p_code, r.sanction_record_id, 'reason', p_expires_at FROM r;
END;
SELECT is(backend.is_sanctioned(:'ann', 'login_block'), false, 'nobody is sanctioned at first');
SELECT pg_temp.sanction(:'ann', 'login_block', backend.now() + interval '1 hour') \gset ignored_
SELECT is(backend.is_sanctioned(:'ann', 'login_block'), true, 'a sanction is in force at once');
SELECT is(backend.is_sanctioned(:'ann', 'game_join_block'), false, 'but no other');
SELECT is(backend.is_sanctioned(:'bob', 'login_block'), false, 'and for nobody else');
SELECT is(
    pg_temp.refused(format('SELECT backend.account_require(%L)', :'ann')),
    jsonb_build_object('sqlstate', 'GX403', 'message', 'sanctioned', 'detail', 'This account may not sign in at present.',
                       'hint', '{"sanction": "login_block"}'),
    'who may not sign in is told which sanction it is');
UPDATE backend.clock SET clock_offset = '1 hour' - interval '1 microsecond';
SELECT is(backend.is_sanctioned(:'ann', 'login_block'), true, 'a sanction lasts to its end');
UPDATE backend.clock SET clock_offset = '1 hour';
SELECT is(backend.is_sanctioned(:'ann', 'login_block'), false, 'and is over then, with no job needed');
SELECT is((backend.account_require(:'ann')).user_id, :'ann'::uuid, 'who is not sanctioned any more is let in');
DELETE FROM backend.sanction_active;
UPDATE backend.clock SET clock_offset = '0';
SELECT pg_temp.sanction(:'ann', c) FROM unnest(ARRAY['private_game_create_block', 'private_game_manage_block', 'game_join_block',
                                                     'profile_update_block', 'diplomail_block']) AS c \g /dev/null
SELECT is((backend.account_require(:'ann')).user_id, :'ann'::uuid, 'other sanctions keep nobody out');

-- account_require(), from the strongest reason.
SELECT throws_ok($$SELECT backend.account_require(gen_random_uuid())$$, 'GX404', 'account_not_found', 'somebody who is not there is not found');
SELECT throws_ok($$SELECT backend.account_require(NULL)$$, 'GX404', 'account_not_found', 'nor is nobody');
SELECT pg_temp.sanction(:'ann', 'login_block'), pg_temp.sanction(:'ann', 'permanent_block') \g /dev/null
UPDATE backend.accounts SET permanent_block = true WHERE user_id = :'ann';
SELECT throws_ok(format('SELECT backend.account_require(%L)', :'ann'), 'GX403', 'account_blocked', 'who is blocked for good is told so first');
UPDATE backend.accounts SET deleted_at = backend.now(), email = NULL WHERE user_id = :'ann';
SELECT throws_ok(format('SELECT backend.account_require(%L)', :'ann'), 'GX403', 'account_deleted', 'who is gone is told so before that');
UPDATE backend.accounts SET deleted_at = NULL, email = 'ann@example.org', permanent_block = false WHERE user_id = :'ann';
DELETE FROM backend.sanction_active;

-- account_json()
CREATE FUNCTION pg_temp.account(p_user_id uuid) RETURNS jsonb LANGUAGE sql
RETURN (SELECT backend.account_json(a) FROM backend.accounts AS a WHERE a.user_id = p_user_id);
SELECT is(
    pg_temp.account(:'ann'),
    jsonb_build_object(
        'user_id', :'ann', 'user_name', :'ann_name', 'email', 'ann@example.org', 'display_name', :'ann_name',
        'preferred_language', 'de', 'time_zone', 'Europe/Berlin', 'declared_country', 'DE',
        'entitlement', jsonb_build_object(
            'tier', 'free', 'is_paid', false, 'starts_at', backend.ts(:'ann_since'), 'ends_at', NULL, 'max_registered_race_names', 1,
            'max_owned_private_games', 1, 'max_pending_applications', 3, 'max_active_memberships', 3),
        'sanctions', '[]'::jsonb, 'limits', '[]'::jsonb,
        'identities', '[{"provider": "email", "subject": "ann@example.org"}]'::jsonb,
        'created_at', backend.ts(:'ann_since'), 'updated_at', backend.ts(:'ann_since')),
    'an account is shown as the contract says');
INSERT INTO backend.entitlement_records (user_id, tier, source, actor, reason_code, starts_at, ends_at)
VALUES (:'ann', 'monthly', 'admin', 'root', 'gift', backend.now(), backend.now() + interval '30 days');
SELECT backend.entitlement_settle(:'ann') \g /dev/null
SELECT is(
    (pg_temp.account(:'ann') -> 'entitlement') - 'starts_at',
    jsonb_build_object('tier', 'monthly', 'is_paid', true, 'ends_at', backend.ts(:'ann_since'::timestamptz + interval '30 days'),
                       'max_registered_race_names', 5, 'max_owned_private_games', 3, 'max_pending_applications', 10, 'max_active_memberships', 10),
    'a grant is shown with its end and its numbers');
UPDATE backend.clock SET clock_offset = '30 days';
SELECT is(
    pg_temp.account(:'ann') -> 'entitlement',
    jsonb_build_object('tier', 'free', 'is_paid', false, 'starts_at', backend.ts(:'ann_since'::timestamptz + interval '30 days'), 'ends_at', NULL,
                       'max_registered_race_names', 1, 'max_owned_private_games', 1, 'max_pending_applications', 3, 'max_active_memberships', 3),
    'one that is over counts as free from its end on, with no job needed');
UPDATE backend.clock SET clock_offset = '0';
SELECT pg_temp.sanction(:'ann', 'game_join_block', backend.now() + interval '1 day'), pg_temp.sanction(:'ann', 'diplomail_block') \g /dev/null
WITH r AS (
    INSERT INTO backend.limit_records (user_id, code, action, value, reason, actor, expires_at)
    VALUES (:'ann', 'max_owned_private_games', 'apply', 0, 'r', 'root', NULL),
           (:'ann', 'max_active_memberships', 'apply', 7, 'r', 'root', backend.now() + interval '1 day') RETURNING *)
INSERT INTO backend.limit_active (user_id, code, limit_record_id, value, expires_at) SELECT user_id, code, limit_record_id, value, expires_at FROM r;
DELETE FROM backend.identities WHERE user_id = :'ann';
INSERT INTO backend.identities (provider, subject, user_id) VALUES ('telegram', '0815', :'ann'), ('email', 'ann@example.org', :'ann');
SELECT is(
    pg_temp.account(:'ann') -> 'sanctions',
    jsonb_build_array(
        jsonb_build_object('code', 'diplomail_block', 'reason', 'reason', 'expires_at', NULL),
        jsonb_build_object('code', 'game_join_block', 'reason', 'reason', 'expires_at', backend.ts(backend.now() + interval '1 day'))),
    'sanctions are shown by their codes');
SELECT is(
    pg_temp.account(:'ann') -> 'limits',
    jsonb_build_array(
        jsonb_build_object('code', 'max_active_memberships', 'value', 7, 'expires_at', backend.ts(backend.now() + interval '1 day')),
        jsonb_build_object('code', 'max_owned_private_games', 'value', 0, 'expires_at', NULL)),
    'limits are shown by their codes');
SELECT is(
    pg_temp.account(:'ann') -> 'identities',
    '[{"provider": "email", "subject": "ann@example.org"}, {"provider": "telegram", "subject": "0815"}]', 'all ways in are shown');
UPDATE backend.clock SET clock_offset = '1 day';
SELECT is(jsonb_array_length(pg_temp.account(:'ann') -> 'sanctions'), 1, 'a sanction that is over is not shown');
SELECT is(jsonb_array_length(pg_temp.account(:'ann') -> 'limits'), 1, 'a limit that is over is not shown');
UPDATE backend.accounts SET display_name = 'Ann' WHERE user_id = :'ann';
SELECT is(pg_temp.account(:'ann') ->> 'updated_at', backend.ts(backend.now()), 'a change is dated');
UPDATE backend.clock SET clock_offset = '0';

-- Constraints.
SELECT is(pg_temp.violated(format('UPDATE backend.accounts SET %s WHERE user_id = %L', v, :'ann')), c, d)
  FROM (VALUES
    ($$email = 'Ann@example.org'$$, 'accounts_email_is_normalised', 'an address is in lower case'),
    (format('email = %L', repeat('a', 243) || '@example.org'), 'accounts_email_is_normalised', 'an address is not too long'),
    ($$display_name = ''$$, 'accounts_display_name_has_1_to_64_characters', 'a display name is something'),
    (format('display_name = %L', repeat('x', 65)), 'accounts_display_name_has_1_to_64_characters', 'a display name is not too long'),
    (format('display_name = %L', repeat('ü', 64)), 'nothing', 'a display name''s characters are counted, not its bytes'),
    ($$preferred_language = 'english please'$$, 'accounts_language_is_a_tag', 'a language is a tag'),
    ($$preferred_language = 'zh-Hant-TW'$$, 'nothing', 'a tag may have parts'),
    ($$time_zone = 'Mars/Olympus'$$, 'accounts_time_zone_is_known', 'a time zone is known'),
    ($$declared_country = 'Deu'$$, 'accounts_country_is_iso_3166', 'a country has two letters'),
    ($$user_name = (SELECT user_name FROM backend.accounts WHERE email IS NULL LIMIT 1)$$, 'accounts_user_name_is_unique', 'a user name is one person''s'),
    ($$deleted_at = backend.now()$$, 'accounts_deleted_keeps_no_email', 'who is gone leaves no address')
  ) AS t(v, c, d);
SELECT is(pg_temp.violated(format('INSERT INTO backend.%s', replace(v, ':ann', quote_literal(:'ann')))), c, d)
  FROM (VALUES
    ($$identities VALUES ('pigeon', 'x', :ann)$$, 'identities_provider_is_known', 'a provider is known'),
    ($$identities VALUES ('email', '', :ann)$$, 'identities_subject_has_1_to_254_characters', 'a subject is something'),
    (format($$identities VALUES ('email', %L, :ann)$$, repeat('x', 255)), 'identities_subject_has_1_to_254_characters', 'a subject is not too long'),
    ($$identities VALUES ('email', 'x', gen_random_uuid())$$, 'identities_user_id_fkey', 'a way in leads to somebody'),
    ($$entitlement_tiers VALUES ('Gold', true, NULL, 1, 1, 1, 1)$$, 'entitlement_tiers_tier_is_snake_case', 'a tier''s name is in snake_case'),
    ($$entitlement_tiers VALUES ('gold', true, NULL, -1, 1, 1, 1)$$, 'entitlement_tiers_race_names_not_negative', 'a tier has no negative number of race names'),
    ($$entitlement_tiers VALUES ('gold', true, NULL, 1, -1, 1, 1)$$, 'entitlement_tiers_private_games_not_negative', 'nor of games'),
    ($$entitlement_tiers VALUES ('gold', true, NULL, 1, 1, -1, 1)$$, 'entitlement_tiers_applications_not_negative', 'nor of applications'),
    ($$entitlement_tiers VALUES ('gold', true, NULL, 1, 1, 1, -1)$$, 'entitlement_tiers_memberships_not_negative', 'nor of memberships'),
    ($$entitlement_records (user_id, tier, source, reason_code, starts_at) VALUES (:ann, 'free', 'magic', 'x', now())$$,
        'entitlement_records_source_is_known', 'a grant comes from somewhere'),
    ($$entitlement_records (user_id, tier, source, reason_code, starts_at, ends_at) VALUES (:ann, 'free', 'admin', 'x', now(), now())$$,
        'entitlement_records_end_after_they_start', 'a grant ends after it starts'),
    ($$entitlement_records (user_id, tier, source, reason_code, starts_at) VALUES (:ann, 'gold', 'admin', 'x', now())$$,
        'entitlement_records_tier_fkey', 'a grant is of a tier there is'),
    ($$sanction_records (user_id, code, action, reason, actor) VALUES (:ann, 'shame', 'apply', 'x', 'x')$$, 'sanction_code_is_known', 'a sanction is known'),
    ($$sanction_records (user_id, code, action, reason, actor) VALUES (:ann, 'login_block', 'add', 'x', 'x')$$,
        'sanction_records_action_is_known', 'a sanction is applied or lifted'),
    ($$sanction_active (user_id, code, sanction_record_id, reason) SELECT user_id, code, sanction_record_id, reason FROM backend.sanction_active LIMIT 1$$,
        'sanction_active_pkey', 'a sanction is in force once'),
    ($$limit_records (user_id, code, action, value, reason, actor) VALUES (:ann, 'max_fun', 'apply', 1, 'x', 'x')$$, 'limit_code_is_known', 'a limit is known'),
    ($$limit_records (user_id, code, action, value, reason, actor) VALUES (:ann, 'max_active_memberships', 'set', 1, 'x', 'x')$$,
        'limit_records_action_is_known', 'a limit is applied or cleared'),
    ($$limit_records (user_id, code, action, value, reason, actor) VALUES (:ann, 'max_active_memberships', 'apply', -1, 'x', 'x')$$,
        'limit_records_value_is_not_negative', 'a limit is not negative'),
    ($$limit_records (user_id, code, action, value, reason, actor) VALUES (:ann, 'max_active_memberships', 'apply', NULL, 'x', 'x')$$,
        'limit_records_apply_has_a_value', 'a limit that is applied has a value'),
    ($$limit_records (user_id, code, action, value, reason, actor) VALUES (:ann, 'max_active_memberships', 'clear', 1, 'x', 'x')$$,
        'limit_records_apply_has_a_value', 'a limit that is cleared has none'),
    ($$limit_active (user_id, code, limit_record_id, value) SELECT user_id, code, limit_record_id, -1 FROM backend.limit_records LIMIT 1$$,
        'limit_active_value_is_not_negative', 'a limit in force is not negative')
  ) AS t(v, c, d);
SELECT lives_ok(
    $$INSERT INTO backend.accounts (user_name, display_name, deleted_at) SELECT 'gone-' || i, 'x', now() FROM generate_series(1, 2) AS i$$,
    'those who are gone have no address in common');

-- Invariants.
DELETE FROM backend.accounts WHERE user_name LIKE 'gone-%';
SELECT is_empty('SELECT * FROM backend.invariants_accounts', 'nothing is wrong yet');
SELECT pg_temp.plant(format('DELETE FROM backend.identities WHERE user_id = %L', :'bob')) \gset ignored_
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_accounts',
    format($$VALUES ('live_account_without_identity', %L::uuid)$$, :'bob'), 'a live account with no way in is listed');
SELECT pg_temp.plant(format('UPDATE backend.accounts SET deleted_at = now(), email = NULL WHERE user_id IN (%L, %L)', :'ann', :'bob')) \gset ignored_
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_accounts',
    format($$VALUES ('deleted_account_with_identity', %L::uuid)$$, :'ann'), 'an account that is gone and keeps its way in is listed, one that does not is not');
SELECT pg_temp.plant('UPDATE backend.accounts SET deleted_at = NULL, permanent_block = true WHERE user_id = ' || quote_literal(:'ann')) \gset ignored_
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_accounts',
    format($$VALUES ('permanent_block_without_sanction', %L::uuid)$$, :'ann'), 'a block without its sanction is listed');
SELECT pg_temp.sanction(:'ann', 'permanent_block') \g /dev/null
SELECT pg_temp.plant(format('DELETE FROM backend.entitlement_snapshots WHERE user_id = %L', :'ann')) \gset ignored_
SELECT results_eq(
    'SELECT invariant, object_id FROM backend.invariants_accounts',
    format($$VALUES ('account_without_entitlement', %L::uuid)$$, :'ann'), 'an account with no entitlement is listed');

SELECT * FROM finish();
ROLLBACK;
