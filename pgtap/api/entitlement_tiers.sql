-- Test galaxy-backend:api/entitlement_tiers

BEGIN;
SELECT plan(24);
\ir ../helpers.psql
\ir ../games.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], returns text, volatility text);
INSERT INTO functions VALUES
    ('entitlement_tier_list', ARRAY['text', 'integer', 'text']::name[], 'text', 'stable'),
    ('entitlement_tier_update', ARRAY['text', 'text', 'jsonb']::name[], 'text', 'volatile');
SELECT function_returns('api', name, arguments, returns, format('%s() answers %s', name, returns)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;
INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SELECT pg_temp.person('ann', 'monthly') AS ann \gset
SET LOCAL ROLE backend_api;
SELECT is(
    (SELECT string_agg(concat_ws(' ', i ->> 'tier', i ->> 'is_paid', i ->> 'duration_days', i ->> 'max_active_memberships'), ', ' ORDER BY n)
       FROM jsonb_array_elements(api.entitlement_tier_list('root', 50, NULL)::jsonb -> 'items') WITH ORDINALITY AS t(i, n)),
    'free false 3, monthly true 30 10, permanent true 10, yearly true 365 10', 'the tiers are listed');
SELECT is(api.entitlement_tier_list('root', 1, api.entitlement_tier_list('root', 1, NULL)::jsonb ->> 'next_cursor')::jsonb -> 'items' -> 0 ->> 'tier', 'monthly', 'in pages');
SELECT is(api.entitlement_tier_update('root', 'monthly', '{"max_active_memberships": 12}')::jsonb - 'updated_at',
    '{"tier": "monthly", "is_paid": true, "duration_days": 30, "max_registered_race_names": 5, "max_owned_private_games": 3, "max_pending_applications": 10, "max_active_memberships": 12}',
    'a number is changed, and nothing else');
RESET ROLE;
SELECT is(backend.account_limit(:'ann', 'max_active_memberships'), 12, 'for those too who have the tier');
SELECT is(api.entitlement_tier_update('root', 'monthly', '{"is_paid": false, "duration_days": 31.0, "max_registered_race_names": 0, "max_owned_private_games": 1, "max_pending_applications": 2}')::jsonb - 'updated_at',
    '{"tier": "monthly", "is_paid": false, "duration_days": 31, "max_registered_race_names": 0, "max_owned_private_games": 1, "max_pending_applications": 2, "max_active_memberships": 12}', 'all can be');
SELECT is(api.entitlement_tier_update('root', 'monthly', '{"duration_days": null}')::jsonb -> 'duration_days', 'null', 'a duration can go');
SELECT throws_ok($$SELECT api.entitlement_tier_update('root', 'free', '{"duration_days": 1}')$$, 'GX400', 'invalid_request', 'what is free has no end');
SELECT throws_ok($$SELECT api.entitlement_tier_update('root', 'gold', '{"is_paid": true}')$$, 'GX404', 'entitlement_tier_not_found', 'a tier is one that there is');
SELECT throws_ok($$SELECT api.entitlement_tier_list('root', 1, '00')$$, 'GX400', 'invalid_cursor', 'a cursor is of this list');
SELECT throws_ok(c, 'GX401', 'unauthorized', 'all this is for administrators')
  FROM unnest(ARRAY[$$SELECT api.entitlement_tier_list('eve', 1, NULL)$$, $$SELECT api.entitlement_tier_update('eve', 'gold', '{}')$$]) AS c;
SELECT is((SELECT count(*) FROM backend.audit_log WHERE action = 'entitlement_tier_update'), 3::bigint, 'every change is in the log');

SELECT * FROM finish();
ROLLBACK;
