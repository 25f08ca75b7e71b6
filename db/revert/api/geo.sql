-- Revert galaxy-backend:api/geo from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.geo_country_list(text, uuid);
DROP FUNCTION api.geo_countries_add(jsonb);

COMMIT;
