-- Revert galaxy-backend:backend/pages from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.page(text, jsonb[], text[], integer);
DROP FUNCTION backend.cursor_read_id(text, text);
DROP FUNCTION backend.cursor_read(text, text);
DROP FUNCTION backend.cursor_make(text, text);

COMMIT;
