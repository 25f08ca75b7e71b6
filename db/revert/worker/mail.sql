-- Revert galaxy-backend:worker/mail from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION worker.mail_purge(integer);
DROP FUNCTION worker.mail_report(uuid, integer, text, text);
DROP FUNCTION worker.mail_keep(uuid, integer, numeric);
DROP FUNCTION worker.mail_claim(integer, numeric, integer);

COMMIT;
