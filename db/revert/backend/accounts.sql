-- Revert galaxy-backend:backend/accounts from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_accounts;
DROP FUNCTION backend.account_internal_json(backend.accounts);
DROP FUNCTION backend.account_json(backend.accounts);
DROP FUNCTION backend.account_create(text, text, text, text, text, text, text);
DROP FUNCTION backend.entitlement_settle(uuid);
DROP FUNCTION backend.entitlement_in_force(uuid);
DROP FUNCTION backend.account_find(text, text);
DROP FUNCTION backend.identity_lock(text, text);
DROP FUNCTION backend.user_name_random();
DROP FUNCTION backend.account_require(uuid);
DROP FUNCTION backend.block_refuse(backend.accounts);
DROP FUNCTION backend.is_sanctioned(uuid, text);
DROP FUNCTION backend.moment_to_come(jsonb, text);
DROP FUNCTION backend.is_over(timestamptz);
DROP TABLE backend.limit_active;
DROP TABLE backend.limit_records;
DROP DOMAIN backend.limit_code;
DROP TABLE backend.sanction_active;
DROP TABLE backend.sanction_records;
DROP DOMAIN backend.sanction_code;
DROP TABLE backend.entitlement_snapshots;
DROP TABLE backend.entitlement_records;
DROP TABLE backend.entitlement_tiers;
DROP TABLE backend.identities;
DROP TABLE backend.accounts;
DROP FUNCTION backend.display_name_clean(text);
DROP FUNCTION backend.is_seen(text);
DROP TABLE backend.time_zones;

COMMIT;
