-- Revert galaxy-backend:backend/geo from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_geo;
DROP TRIGGER forget_countries ON backend.accounts;
DROP FUNCTION backend.tg_accounts__forget_countries();
DROP TABLE backend.user_country_counters;

COMMIT;
