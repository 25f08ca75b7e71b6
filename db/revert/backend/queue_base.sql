-- Revert galaxy-backend:backend/queue_base from pg

SET client_min_messages = warning;

BEGIN;
SET LOCAL ROLE backend_owner;

-- All that is in the schema came from the package's migrations, and goes together; the schema itself is another change's.
DROP SCHEMA procrastinate CASCADE;
RESET ROLE;
CREATE SCHEMA procrastinate AUTHORIZATION backend_owner;
COMMENT ON SCHEMA procrastinate IS 'The job queue: the tables and functions of the Procrastinate package.';
GRANT USAGE ON SCHEMA procrastinate TO backend_worker;

COMMIT;
