# Run by the Postgres image once, when it has made its cluster: the login that owns the database and may make roles, no more.
set -eu
psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\set password `printenv GALAXY_DEPLOY_PASSWORD`
CREATE ROLE galaxy_deploy LOGIN CREATEROLE PASSWORD :'password';
ALTER DATABASE :"DBNAME" OWNER TO galaxy_deploy;
SQL
