-- Revert galaxy-backend:backend/queue from pg

-- The package has no way back between its versions, so the way back is the beginning: everything goes, waiting jobs too, and
-- what the change before this one makes is made again.

SET client_min_messages = warning;

BEGIN;
SET LOCAL ROLE backend_owner;
DROP SCHEMA procrastinate CASCADE;
RESET ROLE;
CREATE SCHEMA procrastinate AUTHORIZATION backend_owner;
COMMENT ON SCHEMA procrastinate IS 'The job queue: the tables and functions of the Procrastinate package.';
GRANT USAGE ON SCHEMA procrastinate TO backend_worker;
COMMIT;

\ir ../../deploy/backend/queue_base.sql
