# Deploys the schema as the login of PGUSER, and lets the three programs in by their password.
set -eu
sqitch deploy --verify "db:pg:$PGDATABASE"
for login in galaxy_api galaxy_worker galaxy_push; do
    psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --set login="$login" <<'SQL'
\set password `printenv GALAXY_LOGIN_PASSWORD`
ALTER ROLE :"login" PASSWORD :'password';
SQL
done
