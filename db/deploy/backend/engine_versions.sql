-- Deploy galaxy-backend:backend/engine_versions to pg
-- requires: backend/errors

-- Why: which engines there are. A version is disabled, never deleted: games that were played with it go on saying so.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.engine_versions (
    version text PRIMARY KEY CONSTRAINT engine_versions_version_is_semantic
        CHECK (version ~ '^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(-(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?$' AND length(version) <= 64),
    image_ref text NOT NULL CONSTRAINT engine_versions_image_ref_is_plain CHECK (image_ref ~ '^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$'),
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.engine_versions IS 'Semantic versions of the game engine and the image of each.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.engine_versions FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

INSERT INTO backend.constraint_errors (constraint_name, status, code, message) VALUES
    ('engine_versions_pkey', 409, 'engine_version_exists', 'This engine version is registered already.');

-- Why such a text: an index or a cursor needs one value. Parts of numbers are padded; a pre-release's identifiers each begin with what
-- puts numbers, by their length, before words, and end with what is before every character that they may have, so that the shorter of
-- two that are otherwise equal comes first; '~' is after all of them.
CREATE FUNCTION backend.version_key(p_version text) RETURNS text
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN lpad(split_part(split_part(p_version, '-', 1), '.', 1), 9, '0')
    || lpad(split_part(split_part(p_version, '-', 1), '.', 2), 9, '0')
    || lpad(split_part(split_part(p_version, '-', 1), '.', 3), 9, '0')
    || CASE WHEN strpos(p_version, '-') = 0 THEN '~' ELSE (
        SELECT string_agg(CASE WHEN i.identifier ~ '^[0-9]+$' THEN '0' || lpad(length(i.identifier)::text, 2, '0') ELSE '1' END || i.identifier || '!', ''
                          ORDER BY i.place)
          FROM regexp_split_to_table(substr(p_version, strpos(p_version, '-') + 1), '\.') WITH ORDINALITY AS i (identifier, place)) END;
COMMENT ON FUNCTION backend.version_key(text) IS 'A text that sorts, in the C collation, as semantic versions do.';

CREATE FUNCTION backend.version_series(p_version text) RETURNS text
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN split_part(p_version, '.', 1) || '.' || split_part(p_version, '.', 2);
COMMENT ON FUNCTION backend.version_series(text) IS 'Major and minor of a semantic version: a running game stays with them.';

CREATE FUNCTION backend.engine_version_newest() RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (SELECT v.version FROM backend.engine_versions AS v WHERE v.enabled AND strpos(v.version, '-') = 0
         ORDER BY backend.version_key(v.version) COLLATE "C" DESC LIMIT 1);
COMMENT ON FUNCTION backend.engine_version_newest() IS 'The newest enabled version that is no pre-release, which one has to ask for; null for none.';

CREATE FUNCTION backend.engine_version_json(p_version backend.engine_versions) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object('version', p_version.version, 'image_ref', p_version.image_ref, 'enabled', p_version.enabled,
                          'created_at', backend.ts(p_version.created_at));
COMMENT ON FUNCTION backend.engine_version_json(backend.engine_versions) IS 'The engine version object of the contract.';

COMMIT;
