-- Test galaxy-backend:api/service

BEGIN;
SELECT plan(12);

-- Attributes.
SELECT function_returns('api', 'schema_changes', '{}'::name[], 'setof text', 'the deployed changes are texts');
SELECT volatility_is('api', f, '{}'::name[], 'stable', format('%s() is STABLE', f)) FROM unnest(ARRAY['schema_changes', 'constraint_errors']) AS f;
SELECT is_definer('api', f, '{}'::name[], format('%s() has its owner''s rights', f)) FROM unnest(ARRAY['schema_changes', 'constraint_errors']) AS f;

-- Privileges.
SELECT function_privs_are('api', f, '{}'::name[], 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', f))
  FROM unnest(ARRAY['schema_changes', 'constraint_errors']) AS f;
SELECT function_privs_are('api', f, '{}'::name[], 'backend_worker', '{}'::name[], format('backend_worker may not execute %s()', f))
  FROM unnest(ARRAY['schema_changes', 'constraint_errors']) AS f;

-- Behaviour.
INSERT INTO backend.constraint_errors VALUES ('accounts_email_is_normalised', 400, 'invalid_request', 'The address is not one.');
INSERT INTO sqitch.projects (project, creator_name, creator_email) VALUES ('another', 'x', 'x');
INSERT INTO sqitch.changes (change_id, script_hash, change, project, committer_name, committer_email, planned_at, planner_name, planner_email)
VALUES ('0000', '0000', 'x', 'another', 'x', 'x', now(), 'x', 'x');
SET LOCAL SESSION AUTHORIZATION galaxy_api;
SELECT isnt_empty('SELECT * FROM api.schema_changes()', 'backend_api reads which changes are deployed');
SELECT is_empty(
    $$SELECT c FROM api.schema_changes() AS c WHERE c !~ '^[0-9a-f]{40}$'$$, 'those of this project, by their ids');
SELECT results_eq(
    $$SELECT status, code, message FROM api.constraint_errors() WHERE constraint_name = 'accounts_email_is_normalised'$$,
    $$VALUES (400, 'invalid_request', 'The address is not one.')$$, 'backend_api reads what a refusal means');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
