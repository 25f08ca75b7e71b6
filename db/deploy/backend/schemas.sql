-- Deploy galaxy-backend:backend/schemas to pg
-- requires: backend/roles

-- Why: `backend` holds what is, and is granted to nobody. `api`, `worker` and `push` hold only functions, each the door of one
-- program. `procrastinate` is the job queue's own.

BEGIN;

CREATE SCHEMA backend AUTHORIZATION backend_owner;
CREATE SCHEMA api AUTHORIZATION backend_owner;
CREATE SCHEMA worker AUTHORIZATION backend_owner;
CREATE SCHEMA push AUTHORIZATION backend_owner;
CREATE SCHEMA procrastinate AUTHORIZATION backend_owner;

COMMENT ON SCHEMA backend IS 'Tables, types, guards and helpers. Granted to nobody.';
COMMENT ON SCHEMA api IS 'The door of the HTTP program: a function for each operation of app/openapi/openapi.yaml.';
COMMENT ON SCHEMA worker IS 'The door of the job program.';
COMMENT ON SCHEMA push IS 'The door of the push streamer.';
COMMENT ON SCHEMA procrastinate IS 'The job queue: the tables and functions of the Procrastinate package.';

-- The global form on purpose: a per-schema REVOKE cannot take away what PUBLIC gets by default.
ALTER DEFAULT PRIVILEGES FOR ROLE backend_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE backend_owner IN SCHEMA api GRANT EXECUTE ON FUNCTIONS TO backend_api;
ALTER DEFAULT PRIVILEGES FOR ROLE backend_owner IN SCHEMA worker GRANT EXECUTE ON FUNCTIONS TO backend_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE backend_owner IN SCHEMA push GRANT EXECUTE ON FUNCTIONS TO backend_push;

GRANT USAGE ON SCHEMA api TO backend_api;
GRANT USAGE ON SCHEMA worker, procrastinate TO backend_worker;
GRANT USAGE ON SCHEMA push TO backend_push;

-- Each program compares the deployed changes with its own plan, through a function that the owner runs.
GRANT USAGE ON SCHEMA :"registry" TO backend_owner;
GRANT SELECT ON :"registry".changes TO backend_owner;

COMMIT;
