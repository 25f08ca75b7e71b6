-- Revert galaxy-backend:backend/unicode from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.text_skeleton(text);
DROP FUNCTION backend.text_fold(text);
DROP FUNCTION backend.text_visible(text);
DROP TABLE backend.name_characters;
DROP TABLE backend.default_ignorables;
DROP TABLE backend.confusables;
DROP TABLE backend.case_foldings;
DROP TABLE backend.unicode_version;

COMMIT;
