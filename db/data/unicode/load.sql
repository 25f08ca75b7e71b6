-- Loads what `python -m dev.unicode_data` wrote to :unicode_directory, in place of what is there. Part of a transaction of the
-- owner's; included with \ir by changes, and by report.sql.

\cd :unicode_directory
DELETE FROM backend.unicode_version;
DELETE FROM backend.case_foldings;
DELETE FROM backend.confusables;
DELETE FROM backend.default_ignorables;
DELETE FROM backend.name_characters;
\copy backend.unicode_version (data_version, unicode_version, icu_version) FROM 'unicode_version.tsv' (ENCODING 'UTF8')
\copy backend.case_foldings (codepoint, folding) FROM 'case_foldings.tsv' (ENCODING 'UTF8')
\copy backend.confusables (codepoint, skeleton) FROM 'confusables.tsv' (ENCODING 'UTF8')
\copy backend.default_ignorables (first_codepoint, last_codepoint) FROM 'default_ignorables.tsv' (ENCODING 'UTF8')
\copy backend.name_characters (first_codepoint, last_codepoint, kind, scripts) FROM 'name_characters.tsv' (ENCODING 'UTF8')
