-- Test galaxy-backend:backend/roles

BEGIN;
SELECT plan(21);

SELECT has_role(r, format('role %s exists', r))
  FROM unnest(ARRAY['backend_owner', 'backend_api', 'backend_worker', 'backend_push',
                    'galaxy_api', 'galaxy_worker', 'galaxy_push']) AS r;

SELECT set_eq(
    $$SELECT rolname::text FROM pg_roles WHERE rolname ~ '^(backend|galaxy)_(owner|api|worker|push)$' AND rolcanlogin$$,
    ARRAY['galaxy_api', 'galaxy_worker', 'galaxy_push'],
    'only the three logins can log in');

SELECT is_empty(
    $$SELECT rolname FROM pg_roles
       WHERE rolname ~ '^(backend|galaxy)_(owner|api|worker|push)$'
         AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)$$,
    'no role of the platform has an attribute that reaches beyond its door');

SELECT is_empty(
    $$SELECT rolname FROM pg_authid WHERE rolname ~ '^galaxy_(api|worker|push)$' AND rolpassword IS NOT NULL$$,
    'no login was given a password: how they authenticate is the operator''s');

SELECT set_eq(
    $$SELECT m.member::regrole::text AS member, m.roleid::regrole::text AS role FROM pg_auth_members AS m
       WHERE m.member::regrole::text ~ '^(backend|galaxy)_(owner|api|worker|push)$'$$,
    $$VALUES ('galaxy_api', 'backend_api'), ('galaxy_worker', 'backend_worker'), ('galaxy_push', 'backend_push')$$,
    'each login is a member of exactly its door''s role, and the doors'' roles and the owner of none');

SELECT is_empty(
    $$SELECT m.member::regrole, m.roleid::regrole FROM pg_auth_members AS m
       WHERE m.admin_option AND m.member::regrole::text ~ '^galaxy_(api|worker|push)$'$$,
    'no login can pass its membership on');

SELECT is_empty(
    $$SELECT rolname FROM pg_roles
       WHERE rolname ~ '^(backend|galaxy)_(owner|api|worker|push)$' AND shobj_description(oid, 'pg_authid') IS NULL$$,
    'every role says what it is for');

-- What a login may become, tried and not only read.
SET LOCAL SESSION AUTHORIZATION galaxy_api;
SELECT lives_ok('SET LOCAL ROLE backend_api', 'galaxy_api can be backend_api');
RESET ROLE;
SELECT throws_ok(format('SET LOCAL ROLE %I', r), '42501', NULL, format('galaxy_api cannot be %s', r))
  FROM unnest(ARRAY['backend_owner', 'backend_worker', 'backend_push']) AS r;
RESET SESSION AUTHORIZATION;

SET LOCAL SESSION AUTHORIZATION galaxy_worker;
SELECT throws_ok(format('SET LOCAL ROLE %I', r), '42501', NULL, format('galaxy_worker cannot be %s', r))
  FROM unnest(ARRAY['backend_owner', 'backend_api']) AS r;
RESET SESSION AUTHORIZATION;

SET LOCAL SESSION AUTHORIZATION galaxy_push;
SELECT throws_ok('SET LOCAL ROLE backend_owner', '42501', NULL, 'galaxy_push cannot be backend_owner');
SELECT throws_ok('CREATE ROLE somebody', '42501', NULL, 'galaxy_push cannot make roles');
RESET SESSION AUTHORIZATION;

SELECT * FROM finish();
ROLLBACK;
