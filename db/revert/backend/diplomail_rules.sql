-- Revert galaxy-backend:backend/diplomail_rules from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.diplomail_game_find(uuid, uuid);
DROP FUNCTION backend.diplomail_json(backend.diplomail_messages, text, timestamptz);
DROP FUNCTION backend.diplomail_send(uuid, text, backend.accounts, jsonb);
DROP FUNCTION backend.diplomail_readers(uuid, uuid, jsonb);
DROP FUNCTION backend.diplomail_text_refuse(jsonb);

COMMIT;
