-- Revert galaxy-backend:worker/lobby from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION worker.invite_attempts_purge(integer);
DROP FUNCTION worker.race_names_expire(integer);
DROP FUNCTION worker.invites_expire(integer);
DROP FUNCTION worker.enrollments_close(integer);

COMMIT;
