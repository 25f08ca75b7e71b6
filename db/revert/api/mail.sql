-- Revert galaxy-backend:api/mail from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.mail_resend(text, uuid);
DROP FUNCTION api.mail_delivery_resend(text, uuid);
DROP FUNCTION api.mail_dead_letter_list(text, text, integer, text);
DROP FUNCTION api.mail_attempt_list(text, uuid, integer, text);
DROP FUNCTION api.mail_delivery_get(text, uuid);
DROP FUNCTION api.mail_delivery_list(text, text[], text, text, integer, text);

COMMIT;
