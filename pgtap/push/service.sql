-- Test galaxy-backend:push/service

BEGIN;
SELECT plan(7);

SELECT function_returns('push', 'schema_changes', '{}'::name[], 'setof text', 'the deployed changes are texts');
SELECT volatility_is('push', 'schema_changes', '{}'::name[], 'stable', 'schema_changes() is STABLE');
SELECT is_definer('push', 'schema_changes', '{}'::name[], 'schema_changes() has its owner''s rights');
SELECT function_privs_are('push', 'schema_changes', '{}'::name[], 'backend_push', ARRAY['EXECUTE'], 'backend_push may execute it');
SELECT function_privs_are('push', 'schema_changes', '{}'::name[], r, '{}'::name[], format('%s may not execute it', r))
  FROM unnest(ARRAY['backend_api', 'backend_worker']) AS r;
SET LOCAL SESSION AUTHORIZATION galaxy_push;
SELECT isnt_empty($$SELECT c FROM push.schema_changes() AS c WHERE c ~ '^[0-9a-f]{40}$'$$, 'backend_push reads which changes are deployed');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
