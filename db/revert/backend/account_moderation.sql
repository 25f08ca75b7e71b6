-- Revert galaxy-backend:backend/account_moderation from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.limit_clear(uuid, text, text, text);
DROP FUNCTION backend.limit_apply(uuid, text, integer, text, text, timestamptz);
DROP FUNCTION backend.sanction_lift(uuid, text, text, text);
DROP FUNCTION backend.sanction_apply(uuid, text, text, text, timestamptz);
DROP FUNCTION backend.entitlement_grant(uuid, text, text, text, timestamptz, timestamptz);
DROP FUNCTION backend.entitlement_end(text, timestamptz);
DROP FUNCTION backend.limit_record_json(backend.limit_records);
DROP FUNCTION backend.sanction_record_json(backend.sanction_records);
DROP FUNCTION backend.entitlement_record_json(backend.entitlement_records);
DROP FUNCTION backend.entitlement_tier_json(backend.entitlement_tiers);
DROP FUNCTION backend.blocked_email_json(backend.blocked_emails);
DROP FUNCTION backend.url_segment(text);
DROP FUNCTION backend.account_moderate(uuid);

COMMIT;
