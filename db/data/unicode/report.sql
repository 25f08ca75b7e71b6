-- What would become of the race names under other data, before a change brings them: from the repository's root,
--     psql "$BACKEND_POSTGRES_DSN_DEPLOY" -v unicode_directory=DIRECTORY -f db/data/unicode/report.sql
-- Nothing stays: the data are loaded, the report is made by the functions that would use them, and all is rolled back.

\set ON_ERROR_STOP on
BEGIN;
SET LOCAL ROLE backend_owner;
\ir load.sql
SELECT data_version FROM backend.unicode_version;
SELECT problem, race_name, user_id, other_race_name, other_user_id FROM backend.race_name_problems ORDER BY problem, race_name;
ROLLBACK;
