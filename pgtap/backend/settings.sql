-- Test galaxy-backend:backend/settings

BEGIN;
SELECT plan(33 + (SELECT count(*)::integer FROM backend.settings) * 8);
\ir ../helpers.psql

-- Attributes.
SELECT has_table('backend', 'settings', 'the numbers of rules are rows');
SELECT columns_are('backend', 'settings',
    ARRAY['setting_name', 'default_value', 'min_value', 'max_value', 'unit', 'description', 'created_at'],
    'each with its default and its bounds');
SELECT col_not_null('backend', 'settings', c, format('%s is always told', c))
  FROM unnest(ARRAY['default_value', 'min_value', 'max_value', 'unit', 'description']) AS c;
SELECT function_returns('backend', 'setting', ARRAY['text'], 'numeric', 'backend.setting() is a number');
SELECT volatility_is('backend', 'setting', ARRAY['text'], 'stable', 'backend.setting() is STABLE');
SELECT function_returns('backend', 'setting_interval', ARRAY['text'], 'interval', 'backend.setting_interval() is an interval');
SELECT volatility_is('backend', 'setting_interval', ARRAY['text'], 'stable', 'backend.setting_interval() is STABLE');

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok($$UPDATE backend.settings SET max_value = 1e9$$, '42501', NULL, 'backend_api cannot move the bounds');
SELECT throws_ok($$SELECT backend.setting('challenge_ttl')$$, '42501', NULL, 'backend_api cannot ask for a setting');
RESET ROLE;

-- Constraints.
SELECT is(
    pg_temp.violated(format('INSERT INTO backend.settings (setting_name, default_value, min_value, max_value, unit, description) VALUES %s', v)),
    c, d)
  FROM (VALUES
    ($$('Bad', 1, 1, 1, 'count', '-')$$, 'settings_name_is_lowercase', 'a name is in lower case'),
    ($$('bad name', 1, 1, 1, 'count', '-')$$, 'settings_name_is_lowercase', 'a name has no space'),
    ($$('a', 1, 1, 1, 'weeks', '-')$$, 'settings_unit_is_known', 'a unit is one that is known'),
    ($$('a', 0, 1, 2, 'count', '-')$$, 'settings_default_is_within_bounds', 'a default is not below its bounds'),
    ($$('a', 3, 1, 2, 'count', '-')$$, 'settings_default_is_within_bounds', 'a default is not above its bounds'),
    ($$('a', 1, 1, 2, 'count', '-'), ('a', 1, 1, 2, 'count', '-')$$, 'settings_pkey', 'a name means one setting')
  ) AS t(v, c, d);

-- The numbers, as the contract of the configuration promises them.
SELECT is(backend.setting(n), v, format('%s is %s by default', n, v))
  FROM (VALUES ('challenge_ttl', 600::numeric), ('challenge_max_attempts', 5), ('challenge_throttle_window', 60),
               ('challenge_throttle_max', 3), ('username_max_retries', 10), ('mail_max_attempts', 8), ('freshness_window', 300)
       ) AS t(n, v);
SELECT is(backend.setting_interval('challenge_ttl'), interval '10 minutes', 'a setting of seconds is an interval');
SELECT is(
    (SELECT count(*) FROM backend.settings WHERE min_value < 0), 0::bigint, 'no setting can be made negative');

-- What a connection sets, for every setting there is.
CREATE FUNCTION pg_temp.given(p_name text, p_value text) RETURNS numeric LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('backend.' || p_name, p_value, true);
    RETURN backend.setting(p_name);
END;
$$;
SELECT is(pg_temp.given(setting_name, min_value::text), min_value, format('%s can be its least', setting_name)) FROM backend.settings;
SELECT is(pg_temp.given(setting_name, max_value::text), max_value, format('%s can be its most', setting_name)) FROM backend.settings;
SELECT is(pg_temp.given(setting_name, (max_value + 1)::text), max_value, format('%s cannot be more', setting_name)) FROM backend.settings;
SELECT is(pg_temp.given(setting_name, '999999999999999'), max_value, format('%s cannot be far more', setting_name)) FROM backend.settings;
SELECT is(pg_temp.given(setting_name, '0'), min_value, format('%s cannot be less', setting_name)) FROM backend.settings;
SELECT is(pg_temp.given(setting_name, ''), default_value, format('%s is its default when it is empty', setting_name)) FROM backend.settings;
SELECT is(pg_temp.given(setting_name, '-1'), default_value, format('%s is its default when it is negative', setting_name)) FROM backend.settings;
SELECT is(pg_temp.given(setting_name, 'NaN'), default_value, format('%s is its default when it is no number', setting_name)) FROM backend.settings;

SELECT is(pg_temp.given('challenge_ttl', '90.5'), 90.5, 'a part of a second counts');
SELECT is(backend.setting_interval('challenge_ttl'), interval '90.5 seconds', 'in the interval too');
SELECT is(pg_temp.given('challenge_ttl', '1e3'), 600::numeric, 'a number is written in digits');
SELECT is(pg_temp.given('challenge_ttl', '9999999999999999'), 600::numeric, 'a number that is too long is none');
SELECT throws_ok($$SELECT backend.setting('no_such_setting')$$, 'P0002', NULL, 'a setting that is not there is a fault');

SELECT * FROM finish();
ROLLBACK;
