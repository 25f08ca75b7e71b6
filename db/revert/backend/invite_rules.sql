-- Revert galaxy-backend:backend/invite_rules from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_invites;
DROP FUNCTION backend.invite_redeem(uuid, uuid, text);
DROP FUNCTION backend.invite_json(backend.invites);

COMMIT;
