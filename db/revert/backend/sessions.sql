-- Revert galaxy-backend:backend/sessions from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_sessions;
DROP FUNCTION backend.session_revoke_all(uuid, text);
DROP FUNCTION backend.session_revoke(uuid, text);
DROP FUNCTION backend.session_json(backend.device_sessions);
DROP TABLE backend.device_sessions;
DELETE FROM backend.state_transitions WHERE machine = 'device_session';

COMMIT;
