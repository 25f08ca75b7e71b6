-- Revert galaxy-backend:backend/mail from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_mail;
DROP FUNCTION backend.mail_erase(uuid);
DROP FUNCTION backend.mail_enqueue(text, text, text[], jsonb, uuid, timestamptz);
DROP FUNCTION backend.mail_render(text, jsonb, boolean);
DROP FUNCTION backend.html_escape(text);
DROP TABLE backend.mail_dead_letters;
DROP TABLE backend.mail_attempts;
DROP TABLE backend.mail_recipients;
DROP TABLE backend.mail_deliveries;
DROP TABLE backend.mail_payloads;
DROP TABLE backend.mail_templates;
DROP FUNCTION backend.mail_has_places_only(text);
DELETE FROM backend.state_transitions WHERE machine = 'mail_delivery';

COMMIT;
