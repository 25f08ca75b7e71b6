-- Test galaxy-backend:backend/budgets

BEGIN;
SELECT plan(92);
\ir ../helpers.psql

-- Attributes.
SELECT has_table('backend', 'auth_budgets', 'there is auth_budgets');
SELECT columns_are('backend', 'auth_budgets',
    ARRAY['budget', 'key_hash', 'spent', 'refused', 'window_started_at', 'last_at', 'expires_at', 'created_at', 'updated_at'],
    'it says what was spent, and holds no address');
SELECT col_is_pk('backend', 'auth_budgets', ARRAY['budget', 'key_hash'], 'a budget is counted once for whom it is');
SELECT has_index('backend', 'auth_budgets', 'auth_budgets_by_expiry', ARRAY['expires_at'], 'those to be deleted are found');
SELECT has_trigger('backend', 'auth_budgets', 'touch', 'updated_at is true');
CREATE TEMPORARY TABLE functions (name text, arguments name[], volatility text);
INSERT INTO functions VALUES
    ('source_network', ARRAY['inet', 'integer'], 'immutable'), ('budget_key', ARRAY['text[]'], 'stable'), ('budget_read', ARRAY['text', 'bytea'], 'stable'),
    ('budget_spend', ARRAY['text', 'bytea', 'numeric'], 'volatile'), ('code_mail_spend', ARRAY['text', 'inet', 'boolean', 'boolean'], 'volatile'),
    ('code_may_be_tried', ARRAY['text', 'inet'], 'volatile'), ('code_was_wrong', ARRAY['text', 'inet'], 'volatile'), ('code_was_right', ARRAY['text'], 'volatile');
SELECT volatility_is('backend', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT isnt_definer('backend', name, arguments, format('%s() has no rights of its own', name)) FROM functions;

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM backend.auth_budgets', '42501', NULL, 'backend_api does not see what was spent');
SELECT throws_ok('DELETE FROM backend.auth_budgets', '42501', NULL, 'and gives nobody another budget');
SELECT throws_ok($$SELECT backend.code_was_right('ann@example.org')$$, '42501', NULL, 'not even through a helper');
RESET ROLE;

-- Constraints.
SELECT is(pg_temp.violated(format('INSERT INTO backend.auth_budgets (budget, key_hash, spent, expires_at) VALUES %s', v)), c, d)
  FROM (VALUES
    ($$('code_mails_per_network', sha256(''), 1, 'infinity')$$, 'nothing', 'something was spent'),
    ($$('code_mails_per_address', sha256(''), 1, 'infinity')$$, 'nothing', 'budgets are apart'),
    ($$('code_mails_per_network', sha256(''), 1, 'infinity')$$, 'auth_budgets_pkey', 'what was spent is counted in one row'),
    ($$('pocket_money', sha256(''), 1, 'infinity')$$, 'auth_budgets_budget_is_known', 'a budget is one that there is'),
    ($$('code_mails_per_service', 'ann@example.org', 1, 'infinity')$$, 'auth_budgets_key_hash_has_32_bytes', 'a key is a hash'),
    ($$('code_mails_per_service', sha256(''), 0, 'infinity')$$, 'auth_budgets_spent_is_positive', 'a row says of something'),
    ($$('code_mails_per_service', sha256(''), 1, backend.now())$$, 'auth_budgets_expire_after_they_start', 'a window has some length')
  ) AS t(v, c, d);
SELECT set_eq(
    $$SELECT (regexp_matches(pg_get_constraintdef(oid), '''(\w+)''', 'g'))[1] FROM pg_constraint WHERE conname = 'auth_budgets_budget_is_known'$$,
    $$SELECT setting_name FROM backend.settings WHERE setting_name ~ '^(code_mails|wrong_codes)_per_'$$, 'each budget is a setting');
DELETE FROM backend.auth_budgets;

-- Networks.
SELECT is(backend.source_network(a::inet, b), n, format('%s is in %s of %s bits', coalesce(a, 'nowhere'), n, b))
  FROM (VALUES
    ('192.0.2.0', 24, '192.0.2.0/24'), ('192.0.2.255', 24, '192.0.2.0/24'), ('192.0.3.0', 24, '192.0.3.0/24'), ('192.0.2.7', 32, '192.0.2.7/32'),
    ('::ffff:192.0.2.77', 24, '192.0.2.0/24'), ('::ffff:192.0.2.77', 32, '192.0.2.77/32'), ('::ffff:255.255.255.255', 24, '255.255.255.0/24'),
    ('2001:db8:1:2:3:4:5:6', 24, '2001:db8:1:2::/64'), ('2001:db8:1:2:ffff::', 32, '2001:db8:1:2::/64'), ('2001:db8:1:3::', 24, '2001:db8:1:3::/64'),
    ('::192.0.2.77', 24, '::/64'), (NULL, 24, 'unknown')
  ) AS t(a, b, n);
SELECT is(length(backend.budget_key('address', 'ann@example.org')), 32, 'a key is a hash');
SELECT isnt(backend.budget_key('a', 'bc'), backend.budget_key('ab', 'c'), 'of its parts apart');
SELECT isnt(backend.budget_key('a', NULL), backend.budget_key('a'), 'all of them');

-- What is spent.
SELECT is(backend.budget_spend('code_mails_per_network', sha256('a'), 2), true, 'the first is spent');
SELECT is(backend.budget_spend('code_mails_per_network', sha256('a'), 2), true, 'the second');
SELECT is(backend.budget_spend('code_mails_per_network', sha256('a'), 2), false, 'a third there is not');
SELECT is(backend.budget_spend('code_mails_per_network', sha256('b'), 2), true, 'somebody else''s is theirs');
SELECT is((backend.budget_read('code_mails_per_network', sha256('a'))).spent, 2::bigint, 'so much was spent');
SELECT is((backend.budget_read('code_mails_per_network', sha256('c'))).spent, 0::bigint, 'of nothing nothing');
SELECT is(backend.budget_spend('code_mails_per_network', sha256('a'), NULL), true, 'without an end it is only counted');
UPDATE backend.clock SET clock_offset = '1 day' - interval '1 microsecond';
SELECT is(backend.budget_spend('code_mails_per_network', sha256('a'), 2), false, 'a budget lasts a day');
UPDATE backend.clock SET clock_offset = '1 day';
SELECT is((backend.budget_read('code_mails_per_network', sha256('a'))).spent, 0::bigint, 'then it is forgotten');
SELECT is(backend.budget_spend('code_mails_per_network', sha256('a'), 2), true, 'and there is another');
SELECT results_eq(
    $$SELECT spent, window_started_at, last_at, expires_at FROM backend.auth_budgets WHERE key_hash = sha256('a')$$,
    $$VALUES (1::bigint, backend.now(), backend.now(), backend.now() + interval '1 day')$$, 'which begins anew');
UPDATE backend.clock SET clock_offset = '0';
SELECT backend.budget_spend('wrong_codes_per_address', sha256('a'), NULL) \g /dev/null
UPDATE backend.clock SET clock_offset = '29 days';
SELECT backend.budget_spend('wrong_codes_per_address', sha256('a'), NULL) \g /dev/null
UPDATE backend.clock SET clock_offset = '58 days';
SELECT is((backend.budget_read('wrong_codes_per_address', sha256('a'))).spent, 2::bigint, 'wrong codes in a row are remembered for 30 days after the last');
UPDATE backend.clock SET clock_offset = '59 days';
SELECT is((backend.budget_read('wrong_codes_per_address', sha256('a'))).spent, 0::bigint, 'and no longer');
UPDATE backend.clock SET clock_offset = '0';
DELETE FROM backend.auth_budgets;

-- Code mails: for a network.
CREATE FUNCTION pg_temp.mail(p_ip inet, p_email text DEFAULT 'ann@example.org', p_known boolean DEFAULT false) RETURNS text LANGUAGE sql
RETURN coalesce(backend.code_mail_spend(p_email, p_ip, p_known, false), 'mailed');
SET LOCAL backend.code_mails_per_network = '2';
SET LOCAL backend.code_mails_per_address = '4';
SET LOCAL backend.code_mails_per_service = '1000';
SELECT is(ARRAY[pg_temp.mail('192.0.2.1'), pg_temp.mail('192.0.2.255'), pg_temp.mail('192.0.2.1')], ARRAY['mailed', 'mailed', 'network'],
          'a network gets an address so many mails a day');
SELECT is(backend.code_mail_spend('ann@example.org', '192.0.2.1', false, true), 'network', 'also where it is throttled');
SELECT is(backend.code_mail_spend('ann@example.org', '198.51.100.1', false, true), 'throttle', 'which others are told');
SELECT is(pg_temp.mail('192.0.2.1', 'bob@example.org'), 'mailed', 'another address has its own');
SELECT is(pg_temp.mail('192.0.3.1'), 'mailed', 'another network too');
SELECT is(
    (SELECT sum(refused) FROM backend.auth_budgets WHERE budget = 'code_mails_per_network'), 2::numeric, 'what was refused is written down');
SELECT is_empty($$SELECT FROM backend.auth_budgets AS b WHERE b::text ~ 'ann|example|192\.0\.'$$, 'and neither who nor where');

-- For an address.
SELECT is(pg_temp.mail('2001:db8::1'), 'mailed', 'an address gets so many a day from everywhere');
SELECT is(pg_temp.mail('2001:db8:0:1::1'), 'address', 'and then no more');
UPDATE backend.clock SET clock_offset = '15 minutes' - interval '1 microsecond';
SELECT is(pg_temp.mail('2001:db8:0:1::1'), 'address', 'for a quarter of an hour');
UPDATE backend.clock SET clock_offset = '15 minutes';
SELECT is(ARRAY[pg_temp.mail('2001:db8:0:1::1'), pg_temp.mail('2001:db8:0:1::1')], ARRAY['mailed', 'address'], 'then one');
UPDATE backend.clock SET clock_offset = '30 minutes';
SELECT is(ARRAY[pg_temp.mail('2001:db8:0:1::1'), pg_temp.mail('2001:db8:0:2::1')], ARRAY['mailed', 'address'], 'and one more');
UPDATE backend.clock SET clock_offset = '1 day';
SELECT is(pg_temp.mail('192.0.2.1'), 'mailed', 'the next day is another');
UPDATE backend.clock SET clock_offset = '0';
DELETE FROM backend.auth_budgets;

-- For the service.
SET LOCAL backend.code_mails_per_service = '1';
SET LOCAL backend.code_mails_per_quiet_network = '2';
SELECT is(ARRAY[pg_temp.mail('192.0.2.1', 'a@example.org'), pg_temp.mail('192.0.2.2', 'b@example.org'), pg_temp.mail('192.0.2.3', 'e@example.org')],
          ARRAY['mailed', 'mailed', 'service'], 'all together get so many, then a quiet network a few');
SELECT is(pg_temp.mail('192.0.2.1', 'c@example.org', true), 'mailed', 'those with an account apart from the others');
SELECT is(pg_temp.mail('192.0.2.1', 'd@example.org', true), 'service', 'they have an end too');
SELECT is(pg_temp.mail('192.0.3.1', 'f@example.org'), 'mailed', 'whoever sits elsewhere is not kept out');
SELECT is_empty(
    format('SELECT FROM backend.auth_budgets WHERE key_hash = %L', backend.budget_key('address', 'd@example.org')),
    'what was not mailed is not counted for the address');
DELETE FROM backend.auth_budgets;

-- Wrong codes: for a network. Others are not hurt.
CREATE FUNCTION pg_temp.try(p_ip inet, p_email text DEFAULT 'ann@example.org') RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF backend.code_may_be_tried(p_email, p_ip) THEN
        PERFORM backend.code_was_wrong(p_email, p_ip);
        RETURN true;
    END IF;
    RETURN false;
END;
$$;
SET LOCAL backend.wrong_codes_per_network = '3';
SET LOCAL backend.wrong_codes_per_address = '5';
SELECT is(
    (SELECT count(*) FROM generate_series(1, 200) AS i WHERE pg_temp.try(inet '192.0.2.0' + i)), 3::bigint, 'of what a network tries so many are compared');
SELECT is(backend.code_may_be_tried('ann@example.org', '192.0.3.1'), true, 'whoever sits elsewhere is not kept out by it');
SELECT is(backend.code_may_be_tried('bob@example.org', '192.0.2.1'), true, 'nor is anybody else there');
UPDATE backend.clock SET clock_offset = '1 day';
SELECT is(backend.code_may_be_tried('ann@example.org', '192.0.2.1'), true, 'the next day is another');
UPDATE backend.clock SET clock_offset = '0';

-- For an address, in a row.
SELECT is(ARRAY[pg_temp.try('198.51.100.1'), pg_temp.try('198.51.100.1')], ARRAY[true, true], 'an address has so many wrong ones in a row');
SELECT is(ARRAY[pg_temp.try('198.51.100.1'), pg_temp.try('203.0.113.1'), pg_temp.try('203.0.113.1')], ARRAY[false, true, false],
          'then a network that was not there yet may try one');
UPDATE backend.clock SET clock_offset = '15 minutes' - interval '1 microsecond';
SELECT is(backend.code_may_be_tried('ann@example.org', '203.0.113.1'), false, 'and waits');
UPDATE backend.clock SET clock_offset = '15 minutes';
SELECT is(ARRAY[pg_temp.try('203.0.113.1'), pg_temp.try('203.0.113.1'), pg_temp.try('2001:db8::1')], ARRAY[true, false, true], 'until it may try one more');
SELECT backend.code_was_right('ann@example.org') \g /dev/null
SELECT is(ARRAY[pg_temp.try('203.0.113.1'), pg_temp.try('203.0.113.1')], ARRAY[true, false], 'a right one ends the row, not what a network has had');
UPDATE backend.clock SET clock_offset = '0';
DELETE FROM backend.auth_budgets;

-- For the service: who was quiet is still served.
SET LOCAL backend.wrong_codes_per_service = '6';
SET LOCAL backend.wrong_codes_per_network = '1000';
SELECT is(
    (SELECT count(*) FROM generate_series(1, 20) AS i WHERE pg_temp.try('192.0.2.1', i || '@example.org')), 6::bigint, 'all together have so many');
SELECT is(
    (SELECT count(*) FROM generate_series(1, 20) AS i WHERE pg_temp.try('192.0.3.1', i || '@example.org')), 5::bigint, 'then a quiet network has a few');
SELECT is(backend.code_may_be_tried('ann@example.org', '192.0.4.1'), true, 'and each has its own');
SELECT is((SELECT spent FROM backend.auth_budgets WHERE budget = 'wrong_codes_per_service'), 6::bigint, 'what is used up grows no more');
UPDATE backend.clock SET clock_offset = '1 day';
SELECT is(backend.code_may_be_tried('ann@example.org', '192.0.2.1'), true, 'the next day is another');
UPDATE backend.clock SET clock_offset = '0';

SELECT * FROM finish();
ROLLBACK;
