-- Test galaxy-backend:worker/service

BEGIN;
SELECT plan(7);

SELECT function_returns('worker', 'schema_changes', '{}'::name[], 'setof text', 'the deployed changes are texts');
SELECT volatility_is('worker', 'schema_changes', '{}'::name[], 'stable', 'schema_changes() is STABLE');
SELECT is_definer('worker', 'schema_changes', '{}'::name[], 'schema_changes() has its owner''s rights');
SELECT function_privs_are('worker', 'schema_changes', '{}'::name[], 'backend_worker', ARRAY['EXECUTE'], 'backend_worker may execute it');
SELECT function_privs_are('worker', 'schema_changes', '{}'::name[], r, '{}'::name[], format('%s may not execute it', r))
  FROM unnest(ARRAY['backend_api', 'backend_push']) AS r;
SET LOCAL SESSION AUTHORIZATION galaxy_worker;
SELECT isnt_empty($$SELECT c FROM worker.schema_changes() AS c WHERE c ~ '^[0-9a-f]{40}$'$$, 'backend_worker reads which changes are deployed');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
