-- Revert galaxy-backend:api/invites from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.invite_revoke(uuid, uuid, uuid);
DROP FUNCTION api.invite_decline(uuid, uuid, uuid);
DROP FUNCTION api.invite_redeem_by_code(uuid, jsonb, bytea);
DROP FUNCTION api.invite_redeem(uuid, uuid, uuid, jsonb, bytea);
DROP FUNCTION api.my_invite_list(uuid, integer, text);
DROP FUNCTION api.invite_get(uuid, uuid, uuid);
DROP FUNCTION api.invite_list(uuid, uuid, integer, text);
DROP FUNCTION api.invite_create(uuid, uuid, jsonb, text, bytea);

COMMIT;
