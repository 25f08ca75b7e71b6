-- Test galaxy-backend:backend/account_moderation

BEGIN;
SELECT plan(16);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges. What they do is seen through the doors: pgtap/api/users.sql and its neighbours.
CREATE TEMPORARY TABLE functions (name text, volatility text);
INSERT INTO functions VALUES
    ('account_moderate', 'volatile'), ('url_segment', 'immutable'), ('blocked_email_json', 'stable'), ('entitlement_tier_json', 'stable'),
    ('entitlement_record_json', 'stable'), ('sanction_record_json', 'stable'), ('limit_record_json', 'stable'), ('entitlement_end', 'stable'), ('entitlement_grant', 'volatile'),
    ('sanction_apply', 'volatile'), ('sanction_lift', 'volatile'), ('limit_apply', 'volatile'), ('limit_clear', 'volatile');
SELECT volatility_is('backend', name, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.sanction_lift(gen_random_uuid(), 'login_block', 'x', 'x')$$, '42501', NULL, 'backend_api acts through its door only');
RESET ROLE;
SELECT pg_temp.person('ann') AS ann \gset
SET LOCAL TimeZone = 'Europe/Berlin';
SELECT is((backend.entitlement_grant(:'ann', 'monthly', 'root', 'x', '2027-03-10T00:00:00Z', NULL)).ends_at, '2027-04-09T00:00:00Z'::timestamptz,
    'thirty days are thirty times 24 hours, also where clocks change');
SELECT is((backend.entitlement_grant(:'ann', 'gold', 'root', 'x', NULL, NULL)).tier, NULL, 'what is no tier is not granted');

SELECT * FROM finish();
ROLLBACK;
