-- Revert galaxy-backend:backend/schemas from pg

BEGIN;

REVOKE SELECT ON :"registry".changes FROM backend_owner;
REVOKE USAGE ON SCHEMA :"registry" FROM backend_owner;

ALTER DEFAULT PRIVILEGES FOR ROLE backend_owner IN SCHEMA push REVOKE EXECUTE ON FUNCTIONS FROM backend_push;
ALTER DEFAULT PRIVILEGES FOR ROLE backend_owner IN SCHEMA worker REVOKE EXECUTE ON FUNCTIONS FROM backend_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE backend_owner IN SCHEMA api REVOKE EXECUTE ON FUNCTIONS FROM backend_api;
ALTER DEFAULT PRIVILEGES FOR ROLE backend_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC;

-- Without CASCADE: whatever a later change forgot to take away stops the revert here.
DROP SCHEMA procrastinate;
DROP SCHEMA push;
DROP SCHEMA worker;
DROP SCHEMA api;
DROP SCHEMA backend;

COMMIT;
