-- Revert galaxy-backend:backend/geo from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_geo;
DELETE FROM backend.deletion_rules WHERE table_name = 'user_country_counters';
DROP TABLE backend.user_country_counters;

COMMIT;
