-- Revert galaxy-backend:api/entitlement_tiers from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION api.entitlement_tier_update(text, text, jsonb);
DROP FUNCTION api.entitlement_tier_list(text, integer, text);

COMMIT;
