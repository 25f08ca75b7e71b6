-- Deploy galaxy-backend:backend/unicode to pg
-- requires: backend/clock

-- Why: what two names look like is a matter of Unicode's data, and Postgres has none of it before 18 but normal forms. They are
-- facts, loaded from db/data/unicode as dev/unicode_data.py wrote them; which ones they are is stored with what comes of them.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.unicode_version (
    is_only boolean PRIMARY KEY DEFAULT true CONSTRAINT unicode_version_has_one_row CHECK (is_only),
    data_version text NOT NULL,
    unicode_version text NOT NULL,
    icu_version text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.unicode_version IS 'One row: which data the tables of Unicode hold; data_version ends in a digest of them.';

CREATE TABLE backend.case_foldings (
    codepoint integer PRIMARY KEY,
    folding text NOT NULL CONSTRAINT case_foldings_folding_is_something CHECK (folding <> ''),
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.case_foldings IS 'Full case folding: CaseFolding.txt, status C and F.';

CREATE TABLE backend.confusables (
    codepoint integer PRIMARY KEY,
    skeleton text NOT NULL CONSTRAINT confusables_skeleton_is_something CHECK (skeleton <> ''),
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.confusables IS 'What a character looks like: the skeletons of Unicode TS 39, for those that a folded name can contain.';

CREATE TABLE backend.default_ignorables (
    first_codepoint integer PRIMARY KEY,
    last_codepoint integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT default_ignorables_range_is_not_empty CHECK (first_codepoint <= last_codepoint)
);
COMMENT ON TABLE backend.default_ignorables IS 'Characters that are not shown: Default_Ignorable_Code_Point.';

CREATE TABLE backend.name_characters (
    first_codepoint integer PRIMARY KEY,
    last_codepoint integer NOT NULL,
    kind text NOT NULL CONSTRAINT name_characters_kind_is_known CHECK (kind IN ('letter', 'mark', 'digit')),
    scripts text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT name_characters_range_is_not_empty CHECK (first_codepoint <= last_codepoint)
);
COMMENT ON TABLE backend.name_characters IS 'Letters, marks and digits, in ranges, and the scripts that they are written in.';
COMMENT ON COLUMN backend.name_characters.scripts IS
    'Script_Extensions, with Jpan, Kore and Hanb for what is written together (Unicode TS 39, 5.1); empty for those of every script.';

\set unicode_directory db/data/unicode
\ir ../../data/unicode/load.sql

CREATE FUNCTION backend.text_visible(p_text text) RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (
    SELECT coalesce(string_agg(c.one, '' ORDER BY c.place), '')
      FROM string_to_table(p_text, NULL) WITH ORDINALITY AS c (one, place)
     WHERE NOT EXISTS (SELECT FROM backend.default_ignorables AS d WHERE ascii(c.one) BETWEEN d.first_codepoint AND d.last_codepoint)
);
COMMENT ON FUNCTION backend.text_visible(text) IS 'A text without the characters that are not shown.';

CREATE FUNCTION backend.text_fold(p_text text) RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (
    -- A subselect for each character, so that no plan reads the whole table.
    SELECT coalesce(string_agg(coalesce((SELECT f.folding FROM backend.case_foldings AS f WHERE f.codepoint = ascii(c.one)), c.one), ''
                               ORDER BY c.place), '')
      FROM string_to_table(p_text, NULL) WITH ORDINALITY AS c (one, place)
);
COMMENT ON FUNCTION backend.text_fold(text) IS 'A text with its case folded, whatever the collation.';

CREATE FUNCTION backend.text_skeleton(p_text text) RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (
    SELECT normalize(coalesce(string_agg(
               coalesce((SELECT f.skeleton FROM backend.confusables AS f WHERE f.codepoint = ascii(c.one)), c.one), ''
               ORDER BY c.place), ''), NFD)
      FROM string_to_table(normalize(p_text, NFD), NULL) WITH ORDINALITY AS c (one, place)
);
COMMENT ON FUNCTION backend.text_skeleton(text) IS 'What a folded text looks like: its skeleton by Unicode TS 39.';

COMMIT;
