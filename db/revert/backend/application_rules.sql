-- Revert galaxy-backend:backend/application_rules from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_applications;
DROP FUNCTION backend.applications_page(text, uuid, uuid, integer, uuid);
DROP FUNCTION backend.application_approve(uuid, uuid, text, text);
DROP FUNCTION backend.application_end(backend.applications, text);
DROP FUNCTION backend.application_hold(uuid, uuid, text, text, text);
DROP FUNCTION backend.application_insert(backend.games, uuid, text);
DROP FUNCTION backend.application_refusal(backend.games, backend.applications, text, text, text);
DROP FUNCTION backend.application_json(backend.applications);

COMMIT;
