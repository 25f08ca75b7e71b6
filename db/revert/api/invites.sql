-- Revert galaxy-backend:api/invites from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.invite_redeem_by_code(uuid, jsonb, bytea);
DROP FUNCTION api.invite_redeem(uuid, uuid, uuid, jsonb, bytea);
DROP FUNCTION api.invite_list(uuid, uuid, integer, text);
DROP FUNCTION api.invite_create(uuid, uuid, jsonb, text, bytea);

COMMIT;
