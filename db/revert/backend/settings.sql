-- Revert galaxy-backend:backend/settings from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.setting_interval(text);
DROP FUNCTION backend.setting(text);
DROP TABLE backend.settings;

COMMIT;
