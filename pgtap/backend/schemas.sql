-- Test galaxy-backend:backend/schemas

BEGIN;
SELECT plan(33);

SELECT schema_owner_is(s, 'backend_owner', format('schema %s is of backend_owner', s))
  FROM unnest(ARRAY['backend', 'api', 'worker', 'push', 'procrastinate']) AS s;
SELECT isnt(obj_description(s::regnamespace, 'pg_namespace'), NULL, format('schema %s says what it is for', s))
  FROM unnest(ARRAY['backend', 'api', 'worker', 'push', 'procrastinate']) AS s;

SELECT set_eq(
    $$SELECT n.nspname::text, coalesce(nullif(a.grantee, 0)::regrole::text, 'PUBLIC'), a.privilege_type
        FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
       WHERE n.nspname IN ('backend', 'api', 'worker', 'push', 'procrastinate') AND a.grantee <> n.nspowner$$,
    $$VALUES ('api', 'backend_api', 'USAGE'), ('worker', 'backend_worker', 'USAGE'), ('push', 'backend_push', 'USAGE'),
             ('procrastinate', 'backend_worker', 'USAGE')$$,
    'a door may be used by its own role, the queue by the worker, backend by nobody; nobody may create in any of them');

SELECT set_eq(
    $$SELECT coalesce(d.defaclnamespace::regnamespace::text, '-'), a.grantee::regrole::text
        FROM pg_default_acl AS d, aclexplode(d.defaclacl) AS a
       WHERE d.defaclrole = 'backend_owner'::regrole AND d.defaclobjtype = 'f' AND d.defaclnamespace <> 0$$,
    $$VALUES ('api', 'backend_api'), ('worker', 'backend_worker'), ('push', 'backend_push')$$,
    'a new function of a door is for its role');

-- The same tried: what the owner makes from now on.
SET LOCAL ROLE backend_owner;
CREATE FUNCTION backend.new_helper() RETURNS integer LANGUAGE sql RETURN 1;
CREATE FUNCTION api.new_function() RETURNS integer LANGUAGE sql RETURN 1;
CREATE FUNCTION worker.new_function() RETURNS integer LANGUAGE sql RETURN 1;
CREATE FUNCTION push.new_function() RETURNS integer LANGUAGE sql RETURN 1;
CREATE FUNCTION procrastinate.new_function() RETURNS integer LANGUAGE sql RETURN 1;
RESET ROLE;
SELECT ok(
    NOT has_function_privilege('public', f, 'EXECUTE'),
    format('a new function %s is not for PUBLIC', f))
  FROM unnest(ARRAY['backend.new_helper()', 'api.new_function()', 'worker.new_function()', 'push.new_function()',
                    'procrastinate.new_function()']) AS f;

SET LOCAL ROLE backend_api;
SELECT lives_ok('SELECT api.new_function()', 'backend_api can execute what is in its door');
SELECT throws_ok(format('SELECT %s', f), '42501', NULL, format('backend_api cannot execute %s', f))
  FROM unnest(ARRAY['backend.new_helper()', 'worker.new_function()', 'push.new_function()', 'procrastinate.new_function()']) AS f;
SET LOCAL ROLE backend_worker;
SELECT lives_ok('SELECT worker.new_function()', 'backend_worker can execute what is in its door');
SELECT throws_ok(format('SELECT %s', f), '42501', NULL, format('backend_worker cannot execute %s', f))
  FROM unnest(ARRAY['backend.new_helper()', 'api.new_function()', 'push.new_function()']) AS f;
SET LOCAL ROLE backend_push;
SELECT lives_ok('SELECT push.new_function()', 'backend_push can execute what is in its door');
SELECT throws_ok(format('SELECT %s', f), '42501', NULL, format('backend_push cannot execute %s', f))
  FROM unnest(ARRAY['backend.new_helper()', 'api.new_function()', 'worker.new_function()']) AS f;
SELECT throws_ok('CREATE TABLE push.mine ()', '42501', NULL, 'backend_push cannot create in its door');
RESET ROLE;

-- The deployed changes are read through the owner.
SELECT ok(has_table_privilege('backend_owner', 'sqitch.changes', 'SELECT'), 'the owner reads which changes are deployed');
SELECT is_empty(
    $$SELECT r FROM unnest(ARRAY['backend_api', 'backend_worker', 'backend_push']) AS r
       WHERE has_table_privilege(r, 'sqitch.changes', 'SELECT, INSERT, UPDATE, DELETE') OR has_schema_privilege(r, 'sqitch', 'USAGE')$$,
    'the doors'' roles do not see Sqitch''s registry');

SELECT * FROM finish();
ROLLBACK;
