-- Deploy galaxy-backend:backend/race_names to pg
-- requires: backend/accounts
-- requires: backend/states
-- requires: backend/unicode

-- Why: the name of a player's side is unique across the platform by its canonical form. One live row per form says who holds it:
-- while it is in use (reservation), when it was earned (pending_registration), for good (registered).

BEGIN;
SET LOCAL ROLE backend_owner;

INSERT INTO backend.state_transitions (machine, action, from_state, to_state, description) VALUES
    ('race_name', 'reserve', NULL, 'reservation', 'A seat is taken under it.'),
    ('race_name', 'earn', 'reservation', 'pending_registration', 'The race grew, and the game is over.'),
    ('race_name', 'register', 'pending_registration', 'registered', 'Its holder keeps it.'),
    ('race_name', 'expire', 'pending_registration', 'released', 'Nobody registered it in time.'),
    ('race_name', 'expire', 'pending_registration', 'reservation', 'Nobody registered it in time, and it is in use.'),
    ('race_name', 'release', 'reservation', 'released', 'Its last use has ended, or its holder is gone.'),
    ('race_name', 'release', 'pending_registration', 'released', 'Its holder is blocked or gone.'),
    ('race_name', 'release', 'registered', 'released', 'Its holder is gone.');

CREATE FUNCTION backend.race_name_canonical(p_race_name text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_text text := text_fold(normalize(text_visible(p_race_name), NFKC));
    v_before text;
BEGIN
    -- Until nothing changes: some characters look like a capital letter, and its small one like something else.
    FOR i IN 1..4 LOOP
        v_before := v_text;
        v_text := text_fold(text_skeleton(v_before));
        EXIT WHEN v_text = v_before;
    END LOOP;
    -- Without separators; I, l and 1, of which case folding leaves two, are one; and a dot on a letter that has one is not seen.
    RETURN normalize(regexp_replace(translate(v_text, 'i ''-.', 'l'), '([lj])\u0307+', '\1', 'g'), NFD);
END;
$$;
COMMENT ON FUNCTION backend.race_name_canonical(text) IS 'What two names that people would take for one have in common; null for null.';

CREATE FUNCTION backend.tg_race_name__store() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    NEW.canonical := race_name_canonical(NEW.race_name);
    NEW.data_version := (SELECT u.data_version FROM unicode_version AS u);
    RETURN NEW;
END;
$$;
COMMENT ON FUNCTION backend.tg_race_name__store() IS 'Before insert or update of a row with a race_name: stores its canonical form, and by which data.';

CREATE TABLE backend.race_names (
    race_name_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    canonical text NOT NULL CONSTRAINT race_names_canonical_is_not_empty CHECK (canonical <> ''),
    data_version text NOT NULL,
    race_name text NOT NULL CONSTRAINT race_names_race_name_has_2_to_32_characters CHECK (length(race_name) BETWEEN 2 AND 32),
    user_id uuid NOT NULL REFERENCES backend.accounts,
    tier text NOT NULL DEFAULT 'reservation',
    expires_at timestamptz,
    registered_at timestamptz,
    released_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT race_names_pending_registration_expires CHECK (tier = 'released' OR (tier = 'pending_registration') = (expires_at IS NOT NULL)),
    CONSTRAINT race_names_registered_says_when CHECK (tier = 'released' OR (tier = 'registered') = (registered_at IS NOT NULL)),
    CONSTRAINT race_names_released_says_when CHECK ((tier = 'released') = (released_at IS NOT NULL))
);
COMMENT ON TABLE backend.race_names IS 'Who holds, or held, which race name.';
COMMENT ON COLUMN backend.race_names.data_version IS 'By which data canonical was made; both are stored by a trigger.';
CREATE UNIQUE INDEX race_names_one_holder ON backend.race_names (canonical) WHERE tier <> 'released';
CREATE INDEX race_names_by_user ON backend.race_names (user_id, race_name_id);
CREATE INDEX race_names_by_expiry ON backend.race_names (expires_at) WHERE tier = 'pending_registration';
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF tier ON backend.race_names
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('race_name', 'tier');
CREATE TRIGGER store BEFORE INSERT OR UPDATE OF race_name, canonical, data_version ON backend.race_names
    FOR EACH ROW EXECUTE FUNCTION backend.tg_race_name__store();
CREATE TRIGGER touch BEFORE UPDATE ON backend.race_names FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.reserved_names (
    race_name text PRIMARY KEY,
    canonical text NOT NULL CONSTRAINT reserved_names_canonical_is_not_empty CHECK (canonical <> ''),
    data_version text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT reserved_names_each_is_another UNIQUE (canonical)
);
COMMENT ON TABLE backend.reserved_names IS 'What no race may be called, nor anything that looks like it: names that speak for the platform.';
CREATE TRIGGER store BEFORE INSERT OR UPDATE OF race_name, canonical, data_version ON backend.reserved_names
    FOR EACH ROW EXECUTE FUNCTION backend.tg_race_name__store();
CREATE TRIGGER touch BEFORE UPDATE ON backend.reserved_names FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();
INSERT INTO backend.reserved_names (race_name)
SELECT n FROM unnest(ARRAY[
    'admin', 'admins', 'administrator', 'administrators', 'administration', 'anonymous', 'deleted', 'everybody', 'everyone',
    'galaxy', 'galaxy admin', 'galaxy support', 'galaxy team', 'game master', 'help desk', 'host', 'mod', 'moderator', 'moderators',
    'nobody', 'official', 'operator', 'owner', 'postmaster', 'root', 'security', 'server', 'service', 'staff', 'superuser',
    'support', 'sysadmin', 'system', 'undefined', 'unknown', 'webmaster']) AS n;

-- Every space of Unicode is one, whatever the collation says.
CREATE FUNCTION backend.race_name_tidy(p_race_name text) RETURNS text
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN btrim(regexp_replace(
    normalize(p_race_name, NFC),
    E'[\\u0009-\\u000d\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+', ' ', 'g'));
COMMENT ON FUNCTION backend.race_name_tidy(text) IS 'A name as it is kept: NFC, trimmed, single spaces.';

CREATE FUNCTION backend.name_character(p_one text) RETURNS backend.name_characters
LANGUAGE sql STABLE SECURITY INVOKER
BEGIN ATOMIC
    -- The range that could hold it, found by its begin.
    SELECT f.* FROM (SELECT * FROM backend.name_characters AS r
                      WHERE r.first_codepoint <= ascii(p_one) ORDER BY r.first_codepoint DESC LIMIT 1) AS f
     WHERE f.last_codepoint >= ascii(p_one);
END;
COMMENT ON FUNCTION backend.name_character(text) IS 'What a character of a name is; null for one that no name has.';

CREATE FUNCTION backend.race_name_problem(p_race_name text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_shape text;
    v_marks text;
    v_is_one_script boolean;
    v_canonical text;
BEGIN
    IF p_race_name IS NULL OR length(p_race_name) NOT BETWEEN 2 AND 32 THEN
        RETURN 'invalid_name';
    END IF;
    WITH parts AS MATERIALIZED (
        SELECT c.place, CASE WHEN c.one IN (' ', '-', '''', '.') THEN 'separator' ELSE n.kind END AS kind, n.scripts
          FROM string_to_table(p_race_name, NULL) WITH ORDINALITY AS c (one, place)
          LEFT JOIN LATERAL name_character(c.one) AS n ON true
    )
    SELECT string_agg(coalesce(left(p.kind, 1), '?'), '' ORDER BY p.place),
           -- One script that all are written in which are not of every script.
           count(*) FILTER (WHERE p.scripts <> '{}') = coalesce((
               SELECT max(s.uses) FROM (SELECT count(*) AS uses FROM parts AS o, unnest(o.scripts) AS script GROUP BY script) AS s), 0)
      INTO v_shape, v_is_one_script
      FROM parts AS p;
    -- Taken apart, so that those count too which are written as one character with their letter.
    SELECT string_agg(CASE WHEN n.kind = 'mark' THEN c.one ELSE ' ' END, '' ORDER BY c.place) INTO v_marks
      FROM string_to_table(normalize(p_race_name, NFD), NULL) WITH ORDINALITY AS c (one, place)
      LEFT JOIN LATERAL name_character(c.one) AS n ON true;
    -- Marks stand on a letter, at most four, never one twice.
    IF v_shape ~ '\?|(^|[ds])m' OR v_marks ~ '[^ ]{5}|([^ ])\1' OR NOT v_is_one_script THEN
        RETURN 'invalid_name';
    END IF;
    v_canonical := race_name_canonical(p_race_name);
    RETURN CASE WHEN v_canonical = '' THEN 'invalid_name'
                WHEN EXISTS (SELECT FROM reserved_names AS r WHERE r.canonical = v_canonical) THEN 'name_reserved' END;
END;
$$;
COMMENT ON FUNCTION backend.race_name_problem(text) IS
    'Why a tidy name may be nobody''s, invalid_name or name_reserved; null when it may be somebody''s.';

CREATE FUNCTION backend.race_name_clean(p_race_name text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := race_name_tidy(p_race_name);
    v_problem text := race_name_problem(v_name);
BEGIN
    IF v_problem = 'name_reserved' THEN
        PERFORM fail(422, 'invalid_name', 'This race name is reserved.', '{"reason": "name_reserved"}');
    ELSIF v_problem IS NOT NULL THEN
        PERFORM fail(422, 'invalid_name', 'A race name has 2 to 32 letters of one script, digits, spaces, hyphens, apostrophes or full stops.',
                     '{"reason": "invalid_name"}');
    END IF;
    RETURN v_name;
END;
$$;
COMMENT ON FUNCTION backend.race_name_clean(text) IS 'A name that may be somebody''s, as it is kept. GX422 invalid_name.';

CREATE FUNCTION backend.race_name_lock(p_canonical text) RETURNS void
LANGUAGE sql VOLATILE SECURITY INVOKER
RETURN pg_advisory_xact_lock(hashtextextended(p_canonical, 11));
COMMENT ON FUNCTION backend.race_name_lock(text) IS
    'Who holds a name changes in one transaction at a time. After accounts and games; of several names, in their order.';

COMMIT;
