-- Revert galaxy-backend:backend/cron from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.cron_next(text, timestamptz);
DROP FUNCTION backend.cron_field(text, integer, integer, text[]);

COMMIT;
