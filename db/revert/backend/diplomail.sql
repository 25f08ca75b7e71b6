-- Revert galaxy-backend:backend/diplomail from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_diplomail;
DROP FUNCTION backend.diplomail_remove(uuid[]);
DROP FUNCTION backend.diplomail_tell(uuid, text, uuid[]);
DROP FUNCTION backend.diplomail_write(uuid, text, backend.accounts, text, text, uuid[]);
DROP FUNCTION backend.diplomail_deliver(uuid, text);
DROP FUNCTION backend.language_primary(text);
DROP TABLE backend.diplomail_broadcasts;
DROP TABLE backend.diplomail_recipients;
DROP TABLE backend.diplomail_translations;
DROP TABLE backend.diplomail_messages;
DROP DOMAIN backend.primary_language;
DELETE FROM backend.state_transitions WHERE machine = 'diplomail_translation';

COMMIT;
