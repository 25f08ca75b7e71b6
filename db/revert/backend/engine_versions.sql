-- Revert galaxy-backend:backend/engine_versions from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.engine_version_json(backend.engine_versions);
DROP FUNCTION backend.engine_version_newest();
DROP FUNCTION backend.version_series(text);
DROP FUNCTION backend.version_key(text);
DROP TABLE backend.engine_versions;
DELETE FROM backend.constraint_errors WHERE constraint_name = 'engine_versions_pkey';

COMMIT;
