-- Revert galaxy-backend:api/users from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.user_soft_delete(text, uuid, jsonb);
DROP FUNCTION api.user_session_revoke_all(text, uuid, jsonb);
DROP FUNCTION api.user_session_list(text, uuid, integer, text);
DROP FUNCTION api.user_limit_clear(text, uuid, text, jsonb);
DROP FUNCTION api.user_limit_apply(text, uuid, jsonb);
DROP FUNCTION api.user_sanction_lift(text, uuid, text, jsonb);
DROP FUNCTION api.user_sanction_apply(text, uuid, jsonb);
DROP FUNCTION api.user_entitlement_grant(text, uuid, jsonb);
DROP FUNCTION api.user_get(text, uuid);
DROP FUNCTION api.user_list(text, integer, text, text, text[], text, text);

COMMIT;
