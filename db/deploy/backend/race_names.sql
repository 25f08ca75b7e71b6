-- Deploy galaxy-backend:backend/race_names to pg
-- requires: backend/accounts

-- Why: the name of a player's side is unique across the platform by its canonical form. One live row per form says who holds it:
-- while it is in use (reservation), when it was earned (pending_registration), for good (registered).

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.race_names (
    race_name_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    canonical text NOT NULL CONSTRAINT race_names_canonical_is_not_empty CHECK (canonical <> ''),
    race_name text NOT NULL CONSTRAINT race_names_race_name_has_2_to_32_characters CHECK (length(race_name) BETWEEN 2 AND 32),
    user_id uuid NOT NULL REFERENCES backend.accounts,
    tier text NOT NULL CONSTRAINT race_names_tier_is_known CHECK (tier IN ('reservation', 'pending_registration', 'registered')),
    expires_at timestamptz,
    registered_at timestamptz,
    released_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT race_names_pending_registration_expires CHECK ((tier = 'pending_registration') = (expires_at IS NOT NULL)),
    CONSTRAINT race_names_registered_says_when CHECK ((tier = 'registered') = (registered_at IS NOT NULL))
);
COMMENT ON TABLE backend.race_names IS 'Who holds which race name; released_at is null while they do.';
CREATE UNIQUE INDEX race_names_one_holder ON backend.race_names (canonical) WHERE released_at IS NULL;
CREATE INDEX race_names_by_user ON backend.race_names (user_id, race_name_id);
CREATE INDEX race_names_by_expiry ON backend.race_names (expires_at) WHERE expires_at IS NOT NULL AND released_at IS NULL;
CREATE TRIGGER touch BEFORE UPDATE ON backend.race_names FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE FUNCTION backend.race_name_canonical(p_race_name text) RETURNS text
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN translate(regexp_replace(lower(normalize(p_race_name, NFKC)), '[\s''.-]', '', 'g'), 'i10', 'llo');
COMMENT ON FUNCTION backend.race_name_canonical(text) IS 'What two names that people would take for one have in common.';

CREATE FUNCTION backend.race_name_clean(p_race_name text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := regexp_replace(btrim(normalize(p_race_name, NFC)), '\s+', ' ', 'g');
BEGIN
    IF v_name IS NULL OR v_name !~ '^[[:alnum:]][[:alnum:] .''-]{0,30}[[:alnum:].]$' OR race_name_canonical(v_name) = '' THEN
        PERFORM fail(422, 'invalid_name', 'A race name has 2 to 32 letters, digits, spaces, hyphens, apostrophes or full stops.');
    END IF;
    RETURN v_name;
END;
$$;
COMMENT ON FUNCTION backend.race_name_clean(text) IS 'A name as it is kept: NFC, trimmed, single spaces. GX422 invalid_name.';

CREATE FUNCTION backend.race_name_reserve(p_user_id uuid, p_race_name text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := race_name_clean(p_race_name);
    v_canonical text := race_name_canonical(v_name);
    v_holder uuid;
BEGIN
    -- Two who want one name at once: the second waits here, and then sees the first.
    PERFORM pg_advisory_xact_lock(hashtextextended(v_canonical, 11));
    SELECT r.user_id INTO v_holder FROM race_names AS r WHERE r.canonical = v_canonical AND r.released_at IS NULL;
    IF v_holder IS NULL THEN
        INSERT INTO race_names (canonical, race_name, user_id, tier) VALUES (v_canonical, v_name, p_user_id, 'reservation');
    ELSIF v_holder <> p_user_id THEN
        PERFORM fail(422, 'name_taken', 'This race name is taken.');
    END IF;
    RETURN v_name;
END;
$$;
COMMENT ON FUNCTION backend.race_name_reserve(uuid, text) IS
    'Makes a person the holder of a name, or leaves it theirs; returns it as it is kept. GX422 invalid_name, name_taken.';

COMMIT;
