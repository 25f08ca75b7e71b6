-- Test galaxy-backend:api/service

BEGIN;
SELECT plan(23);

-- Attributes.
SELECT function_returns('api', 'schema_changes', '{}'::name[], 'setof text', 'the deployed changes are texts');
SELECT volatility_is('api', f, '{}'::name[], 'stable', format('%s() is STABLE', f)) FROM unnest(ARRAY['schema_changes', 'constraint_errors']) AS f;
SELECT is_definer('api', f, '{}'::name[], format('%s() has its owner''s rights', f)) FROM unnest(ARRAY['schema_changes', 'constraint_errors']) AS f;
SELECT function_returns('api', 'program_is_heard', ARRAY['text'], 'boolean', 'a program is heard or not');
SELECT volatility_is('api', 'program_is_heard', ARRAY['text'], 'stable', 'program_is_heard() is STABLE');
SELECT is_definer('api', 'program_is_heard', ARRAY['text'], 'program_is_heard() has its owner''s rights');

-- Privileges.
SELECT function_privs_are('api', 'program_is_heard', ARRAY['text'], 'backend_api', ARRAY['EXECUTE'], 'backend_api may execute program_is_heard()');
SELECT function_privs_are('api', 'program_is_heard', ARRAY['text'], r, '{}'::name[], format('%s may not execute program_is_heard()', r))
  FROM unnest(ARRAY['backend_worker', 'backend_push']) AS r;
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

-- Whether the others work.
SELECT results_eq(
    $$SELECT api.program_is_heard('push'), api.program_is_heard('worker'), api.program_is_heard('other')$$, 'VALUES (false, false, NULL::boolean)',
    'at first nobody was heard of');
UPDATE backend.push_heartbeat SET seen_at = backend.now() - interval '14 seconds';
INSERT INTO procrastinate.procrastinate_workers (last_heartbeat) VALUES (transaction_timestamp() - interval '14 seconds');
SET LOCAL SESSION AUTHORIZATION galaxy_api;
SELECT is(api.program_is_heard(p), true, format('%s: fourteen seconds ago is lately', p)) FROM unnest(ARRAY['push', 'worker']) AS p;
RESET SESSION AUTHORIZATION;
UPDATE backend.push_heartbeat SET seen_at = backend.now() - interval '15 seconds';
UPDATE procrastinate.procrastinate_workers SET last_heartbeat = transaction_timestamp() - interval '15 seconds';
SELECT is(api.program_is_heard(p), false, format('%s: fifteen are not', p)) FROM unnest(ARRAY['push', 'worker']) AS p;

SELECT * FROM finish();
ROLLBACK;
