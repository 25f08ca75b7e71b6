-- Revert galaxy-backend:api/identities from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.identity_unlink(uuid, text);
DROP FUNCTION api.identity_link(uuid, jsonb);
DROP FUNCTION api.identity_session_open(text, jsonb, text, bytea, text);

COMMIT;
