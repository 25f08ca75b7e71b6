-- Revert galaxy-backend:worker/diplomail from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION worker.diplomail_purge(integer);
DROP FUNCTION worker.diplomail_report(uuid, text, integer, text, text, text, text);
DROP FUNCTION worker.diplomail_claim(numeric);
DROP FUNCTION worker.diplomail_broadcast();

COMMIT;
