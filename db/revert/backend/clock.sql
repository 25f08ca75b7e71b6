-- Revert galaxy-backend:backend/clock from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.tg_row__touch();
DROP FUNCTION backend.uuid_v7();
DROP FUNCTION backend.ts(timestamptz);
DROP FUNCTION backend.now();
DROP TABLE backend.clock;

COMMIT;
