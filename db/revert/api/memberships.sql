-- Revert galaxy-backend:api/memberships from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.membership_block(uuid, uuid, uuid);
DROP FUNCTION api.membership_remove(uuid, uuid, uuid);
DROP FUNCTION api.membership_list(uuid, uuid, integer, text);

COMMIT;
