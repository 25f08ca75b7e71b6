-- Revert galaxy-backend:backend/mail_rules from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.mail_delivery_json(backend.mail_deliveries);
DROP FUNCTION backend.mail_resend(uuid);
DROP FUNCTION backend.mail_give_up(uuid, text);

COMMIT;
