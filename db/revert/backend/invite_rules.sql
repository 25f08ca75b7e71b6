-- Revert galaxy-backend:backend/invite_rules from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_invites;
DROP FUNCTION backend.invite_redeem(uuid, uuid, text);
DROP FUNCTION backend.invite_end(backend.invites, text);
DROP FUNCTION backend.invite_insert(backend.games, uuid, jsonb, text, bytea);
DROP FUNCTION backend.invite_refusal(backend.games, backend.invites, text, text, text);
DROP FUNCTION backend.invites_page(text, uuid, uuid, integer, uuid);
DROP FUNCTION backend.invite_json(backend.invites);

COMMIT;
