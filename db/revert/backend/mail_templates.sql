-- Revert galaxy-backend:backend/mail_templates from pg

BEGIN;
SET LOCAL ROLE backend_owner;

-- Mail that was made of them goes with them.
CREATE TEMPORARY TABLE revert_deliveries ON COMMIT DROP AS
SELECT d.delivery_id, d.payload_id FROM backend.mail_deliveries AS d
 WHERE d.template_id IN ('auth.login_code', 'lobby.invite.received', 'lobby.application.approved', 'lobby.application.rejected',
                          'lobby.membership.removed', 'lobby.membership.blocked', 'lobby.race_name.pending', 'game.turn.ready',
                          'game.turn.digest', 'game.started', 'game.finished', 'game.generation.failed',
                          'runtime.image_pull_failed', 'runtime.container_start_failed', 'runtime.start_config_invalid', 'mail.dead_lettered');
DELETE FROM backend.mail_dead_letters WHERE delivery_id IN (SELECT delivery_id FROM revert_deliveries);
DELETE FROM backend.mail_attempts WHERE delivery_id IN (SELECT delivery_id FROM revert_deliveries);
DELETE FROM backend.mail_recipients WHERE delivery_id IN (SELECT delivery_id FROM revert_deliveries);
DELETE FROM backend.mail_deliveries WHERE delivery_id IN (SELECT delivery_id FROM revert_deliveries);
DELETE FROM backend.mail_payloads WHERE payload_id IN (SELECT payload_id FROM revert_deliveries);
DELETE FROM backend.mail_templates
 WHERE template_id IN ('auth.login_code', 'lobby.invite.received', 'lobby.application.approved', 'lobby.application.rejected',
                       'lobby.membership.removed', 'lobby.membership.blocked', 'lobby.race_name.pending', 'game.turn.ready',
                       'game.turn.digest', 'game.started', 'game.finished', 'game.generation.failed',
                       'runtime.image_pull_failed', 'runtime.container_start_failed', 'runtime.start_config_invalid', 'mail.dead_lettered');

COMMIT;
