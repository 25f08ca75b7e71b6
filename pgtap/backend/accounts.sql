-- Test galaxy-backend:backend/accounts

BEGIN;
SELECT plan(234);
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
  FROM (VALUES ('is_over', 'stable'), ('moment_to_come', 'stable'), ('is_sanctioned', 'stable'), ('account_require', 'stable'), ('block_refuse', 'stable'), ('user_name_random', 'volatile'),
               ('identity_lock', 'volatile'), ('account_find', 'volatile'), ('account_create', 'volatile'), ('account_json', 'stable'),
               ('account_internal_json', 'stable'), ('is_seen', 'immutable'), ('display_name_clean', 'immutable'), ('entitlement_in_force', 'stable'), ('entitlement_settle', 'volatile')) AS t(f, v);

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
SELECT a.user_id AS tim FROM backend.account_create('telegram', 'tim', NULL, NULL, 'UTC', NULL) AS a \gset
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

SELECT is(
    backend.account_internal_json(a) - (SELECT array_agg(k) FROM jsonb_object_keys(pg_temp.account(:'ann')) AS k),
    '{"permanent_block": false, "login_blocked": false, "deleted_at": null}', 'the gateway and administrators are shown more')
  FROM backend.accounts AS a WHERE user_id = :'ann';

-- Names.
SELECT is(backend.display_name_clean(n), e, d)
  FROM (VALUES
    (E' \u00a0\u3000Ann \u2003', 'Ann', 'a name is trimmed, of every kind of space'),
    (E'A\u0308nn', E'\u00c4nn', 'a name is kept in NFC'),
    (repeat(E'a\u0308', 64), repeat(E'\u00e4', 64), 'its characters are counted then'),
    (repeat('x', 65), NULL, 'it is not too long'),
    ('', NULL, 'it is something'), (E' \u2003 ', NULL, 'more than spaces'), (E'\u200b\u200d\u2060', NULL, 'more than what has no width'),
    (E'\u3164\u2800 \ufe0f', NULL, 'and more than what only looks empty'),
    (E'a\tb', NULL, 'it holds no tab'), (E'a\nb', NULL, 'no line end'), (E'a\u0085b', NULL, 'no other control'), (E'a\u2028b', NULL, 'no separator'),
    (E'a\u202eb', NULL, 'nothing that turns direction'), (E'a\u2066b', NULL, 'nor isolates it'),
    (E'\u05d3\u200f\u05d5\u05d3', E'\u05d3\u200f\u05d5\u05d3', 'marks within a name are let be'),
    (E'\U0001F469\u200d\U0001F680', E'\U0001F469\u200d\U0001F680', 'so are joined emoji'),
    ('"; DROP TABLE accounts; --', '"; DROP TABLE accounts; --', 'it may be anything that is seen'),
    (NULL, NULL, 'none is none')
  ) AS t(n, e, d);

-- What is in force is the newest grant that has begun and not ended.
CREATE FUNCTION pg_temp.force(p_user_id uuid) RETURNS text LANGUAGE sql
RETURN (SELECT e.tier || ' since ' || extract(day FROM e.starts_at - transaction_timestamp()) || coalesce(' until ' || extract(day FROM e.ends_at - transaction_timestamp()), '')
          FROM backend.entitlement_in_force(p_user_id) AS e);
CREATE FUNCTION pg_temp.snapshot(p_user_id uuid) RETURNS text LANGUAGE sql
RETURN (SELECT s.tier || ' ' || r.source || coalesce(' changes ' || extract(day FROM s.changes_at - transaction_timestamp()), '')
          FROM backend.entitlement_snapshots AS s JOIN backend.entitlement_records AS r USING (entitlement_record_id) WHERE s.user_id = p_user_id);
SELECT is(pg_temp.force(:'tim'), 'free since 0', 'somebody new has what is free');
SELECT is(pg_temp.snapshot(:'tim'), 'free registration', 'and nothing is to come');
SELECT is((backend.entitlement_in_force(gen_random_uuid())).tier, 'free', 'so has nobody');
INSERT INTO backend.entitlement_records (user_id, tier, source, reason_code, starts_at, ends_at)
SELECT :'tim', t, 'admin', 'x', transaction_timestamp() + s, transaction_timestamp() + e
  FROM (VALUES (1, 'yearly', interval '0', interval '40 days'), (2, 'monthly', '10 days', '30 days'), (3, 'permanent', '60 days', NULL)) AS t(n, t, s, e) ORDER BY n;
SELECT backend.entitlement_settle(:'tim') \g /dev/null
SELECT is(pg_temp.force(:'tim'), 'yearly since 0 until 40', 'a grant is in force from its begin');
SELECT is(pg_temp.snapshot(:'tim'), 'yearly admin changes 10', 'it is written down, and when the next begins');
UPDATE backend.clock SET clock_offset = '10 days';
SELECT is(pg_temp.force(:'tim'), 'monthly since 10 until 30', 'a newer one hides it from its begin on');
SELECT is(pg_temp.snapshot(:'tim'), 'yearly admin changes 10', 'with no job needed');
SELECT backend.entitlement_settle(:'tim') \g /dev/null
SELECT is(pg_temp.snapshot(:'tim'), 'monthly admin changes 30', 'which comes and writes it down');
UPDATE backend.clock SET clock_offset = '30 days' - interval '1 microsecond';
SELECT is(pg_temp.force(:'tim'), 'monthly since 10 until 30', 'to its last moment');
UPDATE backend.clock SET clock_offset = '30 days';
SELECT is(pg_temp.force(:'tim'), 'yearly since 30 until 40', 'then the hidden one is there again, from that end on');
SELECT backend.entitlement_settle(:'tim') \g /dev/null
UPDATE backend.clock SET clock_offset = '40 days';
SELECT is(pg_temp.force(:'tim'), 'free since 40', 'where both have ended free follows');
SELECT backend.entitlement_settle(:'tim'), backend.entitlement_settle(:'tim') \g /dev/null
SELECT is(pg_temp.force(:'tim'), 'free since 40', 'it is recorded, and what is in force is the same as before');
SELECT is(pg_temp.snapshot(:'tim'), 'free expiry changes 60', 'as an expiry');
SELECT is((SELECT count(*) FROM backend.entitlement_records WHERE user_id = :'tim' AND source = 'expiry'), 1::bigint, 'once');
UPDATE backend.clock SET clock_offset = '60 days';
SELECT is(pg_temp.force(:'tim'), 'permanent since 60', 'which then begins all the same');
SELECT backend.entitlement_settle(:'tim') \g /dev/null
SELECT is(pg_temp.snapshot(:'tim'), 'permanent admin', 'and never ends');

-- An expiry outranks no grant, whichever was made first.
CREATE FUNCTION pg_temp.begin_anew(p_user_id uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE backend.clock SET clock_offset = '0';
    DELETE FROM backend.entitlement_snapshots WHERE user_id = p_user_id;
    DELETE FROM backend.entitlement_records WHERE user_id = p_user_id AND source <> 'registration';
    PERFORM backend.entitlement_settle(p_user_id);
END;
$$;
CREATE FUNCTION pg_temp.grant(p_user_id uuid, p_tier text, p_from integer, p_to integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO backend.entitlement_records (user_id, tier, source, reason_code, starts_at, ends_at)
    VALUES (p_user_id, p_tier, 'admin', 'x', transaction_timestamp() + make_interval(days => p_from), transaction_timestamp() + make_interval(days => p_to));
    PERFORM backend.entitlement_settle(p_user_id);
END;
$$;
CREATE FUNCTION pg_temp.settled_at(p_user_id uuid, p_day integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE backend.clock SET clock_offset = make_interval(days => p_day);
    PERFORM backend.entitlement_settle(p_user_id);
    RETURN pg_temp.snapshot(p_user_id);
END;
$$;
SELECT pg_temp.begin_anew(:'tim'), pg_temp.grant(:'tim', 'yearly', 20, 60), pg_temp.grant(:'tim', 'monthly', 0, 6) \g /dev/null
SELECT is(pg_temp.settled_at(:'tim', d), s, format('granted in advance before one that ends: at day %s', d))
  FROM (VALUES (0, 'monthly admin changes 6'), (6, 'free expiry changes 20'), (8, 'free expiry changes 20'), (20, 'yearly admin changes 60'), (60, 'free expiry')) AS t(d, s);
SELECT is((SELECT count(*) FROM backend.entitlement_records WHERE user_id = :'tim' AND source = 'expiry'), 2::bigint, 'each expiry is on record once');
SELECT pg_temp.begin_anew(:'tim'), pg_temp.grant(:'tim', 'monthly', 0, 6), pg_temp.grant(:'tim', 'yearly', 20, 60) \g /dev/null
SELECT is(pg_temp.settled_at(:'tim', d), s, format('granted in advance after it: at day %s', d))
  FROM (VALUES (0, 'monthly admin changes 6'), (8, 'free expiry changes 20'), (23, 'yearly admin changes 60')) AS t(d, s);
SELECT pg_temp.begin_anew(:'tim'), pg_temp.grant(:'tim', 'permanent', 0, NULL), pg_temp.grant(:'tim', 'free', 0, 20), pg_temp.grant(:'tim', 'monthly', 0, 10) \g /dev/null
SELECT is(pg_temp.settled_at(:'tim', d), s, format('free for a while over something better: at day %s', d))
  FROM (VALUES (0, 'monthly admin changes 10'), (10, 'free admin changes 20'), (20, 'permanent admin')) AS t(d, s);
SELECT pg_temp.begin_anew(:'tim'), pg_temp.grant(:'tim', 'monthly', 5, 10) \g /dev/null
SELECT is(pg_temp.settled_at(:'tim', 30), 'free expiry', 'of a grant that nobody wrote down the end is on record');
SELECT is(pg_temp.force(:'tim'), 'free since 10', 'at its time');

UPDATE backend.clock SET clock_offset = '0';
DELETE FROM backend.entitlement_snapshots WHERE user_id = :'tim';
DELETE FROM backend.entitlement_records WHERE user_id = :'tim';
DELETE FROM backend.identities WHERE user_id = :'tim';
DELETE FROM backend.accounts WHERE user_id = :'tim';

-- Constraints.
SELECT is(pg_temp.violated(format('UPDATE backend.accounts SET %s WHERE user_id = %L', v, :'ann')), c, d)
  FROM (VALUES
    ($$email = 'Ann@example.org'$$, 'accounts_email_is_normalised', 'an address is in lower case'),
    (format('email = %L', repeat('a', 243) || '@example.org'), 'accounts_email_is_normalised', 'an address is not too long'),
    ($$display_name = ''$$, 'accounts_display_name_has_1_to_64_characters', 'a display name is something'),
    (format('display_name = %L', repeat(' ', 65)), 'accounts_display_name_has_1_to_64_characters', 'a display name is not too long'),
    ($$display_name = ' Ann'$$, 'accounts_display_name_is_clean', 'a display name is trimmed'),
    ($$display_name = E'A\u0308nn'$$, 'accounts_display_name_is_clean', 'a display name is in NFC'),
    ($$display_name = E'\u202eAnn'$$, 'accounts_display_name_is_clean', 'a display name turns nothing'),
    ($$display_name = E'\u200b'$$, 'accounts_display_name_is_clean', 'a display name is seen'),
    (format('display_name = %L', repeat('ü', 64)), 'nothing', 'a display name''s characters are counted, not its bytes'),
    ($$preferred_language = 'english please'$$, 'accounts_language_is_a_tag', 'a language is a tag'),
    ($$preferred_language = 'zh-Hant-TW'$$, 'nothing', 'a tag may have parts'),
    ($$time_zone = 'Mars/Olympus'$$, 'accounts_time_zone_is_known', 'a time zone is known'),
    ($$declared_country = 'Deu'$$, 'accounts_country_is_iso_3166', 'a country has two letters'),
    ($$turn_reminder = 'hourly'$$, 'accounts_turn_reminder_is_known', 'how somebody is reminded is known'),
    ($$user_name = (SELECT user_name FROM backend.accounts WHERE email IS NULL LIMIT 1)$$, 'accounts_user_name_is_unique', 'a user name is one person''s'),
    ($$deleted_at = backend.now()$$, 'accounts_deleted_keeps_no_email', 'who is gone leaves no address')
  ) AS t(v, c, d);
SELECT is(pg_temp.violated(format('INSERT INTO backend.%s', replace(v, ':ann', quote_literal(:'ann')))), c, d)
  FROM (VALUES
    ($$identities VALUES ('pigeon', 'x', :ann)$$, 'identities_provider_is_known', 'a provider is known'),
    ($$identities VALUES ('email', '', :ann)$$, 'identities_subject_has_1_to_254_characters', 'a subject is something'),
    (format($$identities VALUES ('email', %L, :ann)$$, repeat('x', 255)), 'identities_subject_has_1_to_254_characters', 'a subject is not too long'),
    ($$identities VALUES ('email', 'x', gen_random_uuid())$$, 'identities_user_id_fkey', 'a way in leads to somebody'),
    ($$identities VALUES ('email', 'x@example.org', :ann)$$, 'identities_one_per_person_and_provider', 'a person has one way in of each kind'),
    ($$entitlement_tiers VALUES ('Gold', true, NULL, 1, 1, 1, 1)$$, 'entitlement_tiers_tier_is_snake_case', 'a tier''s name is in snake_case'),
    ($$entitlement_tiers VALUES ('gold', true, NULL, -1, 1, 1, 1)$$, 'entitlement_tiers_race_names_not_negative', 'a tier has no negative number of race names'),
    ($$entitlement_tiers VALUES ('gold', true, NULL, 1, -1, 1, 1)$$, 'entitlement_tiers_private_games_not_negative', 'nor of games'),
    ($$entitlement_tiers VALUES ('gold', true, NULL, 1, 1, -1, 1)$$, 'entitlement_tiers_applications_not_negative', 'nor of applications'),
    ($$entitlement_tiers VALUES ('gold', true, NULL, 1, 1, 1, -1)$$, 'entitlement_tiers_memberships_not_negative', 'nor of memberships'),
    ($$entitlement_tiers SELECT 'free', false, '1 day', 1, 1, 1, 1$$, 'entitlement_tiers_free_has_no_end', 'what is free does not end'),
    ($$sanction_records (user_id, code, action, reason, actor) VALUES (:ann, 'login_block', 'apply', ' ', 'x')$$,
        'sanction_records_reason_has_1_to_500_characters', 'a sanction has a reason'),
    ($$sanction_records (user_id, code, action, reason, actor) VALUES (:ann, 'login_block', 'apply', E' \u3164\n\u200b', 'x')$$,
        'sanction_records_reason_has_1_to_500_characters', 'that is seen'),
    ($$sanction_records (user_id, code, action, reason, actor, expires_at) VALUES (:ann, 'permanent_block', 'apply', 'x', 'x', now())$$,
        'sanction_records_permanent_block_has_no_end', 'a block for good has no end'),
    ($$limit_records (user_id, code, action, value, reason, actor) VALUES (:ann, 'max_active_memberships', 'apply', 1, repeat('x', 501), 'x')$$,
        'limit_records_reason_has_1_to_500_characters', 'a limit''s reason is not too long'),
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
CREATE FUNCTION pg_temp.broken(p_sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_found text;
BEGIN
    BEGIN
        PERFORM pg_temp.plant(p_sql);
        SELECT string_agg(v.invariant || ' ' || a.email, ', ' ORDER BY v.invariant) INTO v_found
          FROM backend.invariants_accounts AS v JOIN (VALUES ((SELECT user_id FROM backend.identities WHERE subject = 'ann@example.org'), 'ann'),
                                                            ((SELECT user_id FROM backend.accounts WHERE user_name = 'bob'), 'bob')) AS a(user_id, email) ON a.user_id = v.object_id;
        RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = coalesce(v_found, 'nothing');
    EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
        RETURN SQLERRM;
    END;
END;
$$;
UPDATE backend.accounts SET user_name = 'bob' WHERE user_id = :'bob';
SELECT is(pg_temp.broken(replace(replace(s, ':ann', quote_literal(:'ann')), ':bob', quote_literal(:'bob'))), w, d)
  FROM (VALUES
    ('DELETE FROM backend.identities WHERE user_id = :bob', 'live_account_without_identity' || ' bob', 'a live account with no way in is listed'),
    ($$UPDATE backend.accounts SET deleted_at = now(), email = NULL, display_name = 'deleted', declared_country = NULL WHERE user_id = :ann$$,
        'deleted_account_with_identity' || ' ann', 'an account that is gone and keeps its way in is listed'),
    ('UPDATE backend.accounts SET deleted_at = now(), email = NULL, declared_country = NULL WHERE user_id = :ann',
        'deleted_account_with_identity' || ' ann, ' || 'deleted_account_with_personal_data' || ' ann', 'so is one that keeps its name'),
    ('UPDATE backend.accounts SET permanent_block = true WHERE user_id = :ann', 'permanent_block_without_sanction' || ' ann', 'a block without its sanction is listed'),
    ($$UPDATE backend.sanction_active SET code = 'permanent_block' WHERE user_id = :ann AND code = 'diplomail_block'$$,
        'permanent_block_that_is_not_in_force' || ' ann, ' || 'sanction_and_record_disagree' || ' ann', 'a sanction without its block is listed, and one that its record does not know'),
    ('UPDATE backend.limit_active SET value = 8 WHERE user_id = :ann AND value = 7', 'limit_and_record_disagree' || ' ann', 'so is such a limit'),
    ($$UPDATE backend.entitlement_snapshots SET tier = 'yearly' WHERE user_id = :ann$$, 'snapshot_and_record_disagree' || ' ann', 'and such a grant'),
    ('INSERT INTO backend.entitlement_records (user_id, tier, source, reason_code, starts_at) VALUES (:bob, ''monthly'', ''admin'', ''x'', now())',
        'free_although_a_grant_is_in_force' || ' bob, ' || 'snapshot_of_an_older_grant' || ' bob', 'a grant that was not written down is listed'),
    ('DELETE FROM backend.entitlement_snapshots WHERE user_id = :ann', 'account_without_entitlement' || ' ann', 'an account with no entitlement is listed')
  ) AS t(s, w, d);

-- An end in a body.
SELECT is(backend.moment_to_come('{}', 'at'), NULL, 'no end is none');
SELECT is(backend.moment_to_come(jsonb_build_object('at', backend.ts(backend.now() + interval '1 microsecond')), 'at'), backend.now() + interval '1 microsecond', 'an end is to come');
SELECT throws_ok($$SELECT backend.moment_to_come(jsonb_build_object('at', backend.ts(backend.now())), 'at')$$, 'GX400', 'invalid_request', 'and is over when it comes');

SELECT * FROM finish();
ROLLBACK;
