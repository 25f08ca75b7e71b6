-- Revert galaxy-backend:api/sessions from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.my_session_revoke_all(uuid);
DROP FUNCTION api.my_session_revoke(uuid, uuid);
DROP FUNCTION api.my_session_list(uuid, integer, text);
DROP FUNCTION api.session_revoke_all(uuid, jsonb);
DROP FUNCTION api.session_revoke(uuid, jsonb);
DROP FUNCTION api.sessions_seen(uuid[], double precision[]);
DROP FUNCTION api.session_resolve(jsonb, bytea);
DROP FUNCTION api.session_get(uuid);

COMMIT;
