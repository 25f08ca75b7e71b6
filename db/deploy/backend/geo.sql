-- Deploy galaxy-backend:backend/geo to pg
-- requires: backend/account_deletion

-- Why: from which countries a person's requests come, for administrators. Counts only: no address is stored.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.user_country_counters (
    user_id uuid NOT NULL REFERENCES backend.accounts,
    country text NOT NULL CONSTRAINT user_country_counters_country_is_iso_3166 CHECK (country ~ '^[A-Z]{2}$'),
    requests bigint NOT NULL CONSTRAINT user_country_counters_requests_are_some CHECK (requests > 0),
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (user_id, country),
    CONSTRAINT user_country_counters_last_is_not_before_first CHECK (last_seen_at >= first_seen_at)
);
COMMENT ON TABLE backend.user_country_counters IS 'How many answered requests of a person came from a country; gone with the account.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.user_country_counters FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

INSERT INTO backend.deletion_rules (table_name, column_name, holds, rule, description) VALUES
    ('user_country_counters', 'user_id', 'person', 'delete', 'Where they were is nobody''s business any more.');

CREATE VIEW backend.invariants_geo AS
SELECT 'deleted_account_with_countries' AS invariant, c.user_id AS object_id, c.country AS details
  FROM backend.user_country_counters AS c JOIN backend.accounts AS a USING (user_id)
 WHERE a.deleted_at IS NOT NULL;
COMMENT ON VIEW backend.invariants_geo IS 'What must never be seen in counters of countries.';

COMMIT;
