-- Revert galaxy-backend:api/engine_versions from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.engine_version_disable(text, text);
DROP FUNCTION api.engine_version_update(text, text, jsonb);
DROP FUNCTION api.engine_version_create(text, jsonb);
DROP FUNCTION api.engine_version_list(text, integer, text);

COMMIT;
