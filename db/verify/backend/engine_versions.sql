-- Verify galaxy-backend:backend/engine_versions on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT version, image_ref, enabled, created_at, updated_at FROM backend.engine_versions WHERE false;

DO $$
BEGIN
    ASSERT backend.version_key('1.10.0') COLLATE "C" > backend.version_key('1.9.0')
       AND backend.version_key('1.0.0-rc.10') COLLATE "C" > backend.version_key('1.0.0-rc.9')
       AND backend.version_key('1.0.0') COLLATE "C" > backend.version_key('1.0.0-rc.1'), 'versions sort wrongly';
    ASSERT backend.version_series('1.2.3-rc.1') = '1.2', 'a version is of another series';
    PERFORM backend.engine_version_newest();
    PERFORM 'backend.engine_version_json(backend.engine_versions)'::regprocedure;
END;
$$;

ROLLBACK;
