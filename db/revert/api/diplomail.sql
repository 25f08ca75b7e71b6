-- Revert galaxy-backend:api/diplomail from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.diplomail_unread_list(uuid);
DROP FUNCTION api.diplomail_delete(uuid, uuid, uuid);
DROP FUNCTION api.diplomail_read(uuid, uuid, uuid);
DROP FUNCTION api.diplomail_get(uuid, uuid, uuid);
DROP FUNCTION api.diplomail_sent_list(uuid, uuid, integer, text);
DROP FUNCTION api.diplomail_inbox_list(uuid, uuid, integer, text);
DROP FUNCTION api.diplomail_send(uuid, uuid, jsonb);

COMMIT;
