-- Revert galaxy-backend:worker/maintenance from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION worker.invariants_list();
DROP FUNCTION worker.push_events_purge(integer);
DROP FUNCTION worker.admin_attempts_purge(integer);
DROP FUNCTION worker.auth_budgets_purge(integer);
DROP FUNCTION worker.idempotency_keys_purge(integer);
DROP FUNCTION worker.challenges_purge(integer);

COMMIT;
