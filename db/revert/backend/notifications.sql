-- Revert galaxy-backend:backend/notifications from pg

BEGIN;
SET LOCAL ROLE backend_owner;

-- Mail that was made of notifications goes with its templates.
CREATE TEMPORARY TABLE revert_deliveries ON COMMIT DROP AS
SELECT d.delivery_id, d.payload_id FROM backend.mail_deliveries AS d
 WHERE d.template_id IN (SELECT k.kind FROM backend.notification_kinds AS k);
DELETE FROM backend.mail_dead_letters WHERE delivery_id IN (SELECT delivery_id FROM revert_deliveries);
DELETE FROM backend.mail_attempts WHERE delivery_id IN (SELECT delivery_id FROM revert_deliveries);
DELETE FROM backend.mail_recipients WHERE delivery_id IN (SELECT delivery_id FROM revert_deliveries);
DELETE FROM backend.mail_deliveries WHERE delivery_id IN (SELECT delivery_id FROM revert_deliveries);
DELETE FROM backend.mail_payloads WHERE payload_id IN (SELECT payload_id FROM revert_deliveries);
DELETE FROM backend.mail_templates WHERE template_id IN (SELECT k.kind FROM backend.notification_kinds AS k);

DROP VIEW backend.invariants_notifications;
DROP FUNCTION backend.notification_submit(text, text, uuid, jsonb);
DROP FUNCTION backend.notification_problem(text, jsonb);
DROP TABLE backend.notification_malformed_intents;
DROP TABLE backend.notification_routes;
DROP TABLE backend.notifications;
DROP TABLE backend.notification_kinds;
DELETE FROM backend.state_transitions WHERE machine = 'notification_route';

COMMIT;
