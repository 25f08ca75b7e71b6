-- Verify galaxy-backend:backend/schemas on pg

BEGIN;

DO $$
DECLARE
    v_schema text;
    v_role text;
BEGIN
    FOREACH v_schema IN ARRAY ARRAY['backend', 'api', 'worker', 'push', 'procrastinate'] LOOP
        ASSERT (SELECT nspowner = 'backend_owner'::regrole FROM pg_namespace WHERE nspname = v_schema),
            format('schema %s is missing, or is not of backend_owner', v_schema);
    END LOOP;
    FOREACH v_role IN ARRAY ARRAY['backend_api', 'backend_worker', 'backend_push', 'galaxy_api', 'galaxy_worker', 'galaxy_push'] LOOP
        ASSERT NOT has_schema_privilege(v_role, 'backend', 'USAGE'), format('%s must not see schema backend', v_role);
    END LOOP;
    ASSERT has_schema_privilege('backend_api', 'api', 'USAGE'), 'backend_api cannot use its door';
    ASSERT has_schema_privilege('backend_worker', 'worker', 'USAGE'), 'backend_worker cannot use its door';
    ASSERT has_schema_privilege('backend_push', 'push', 'USAGE'), 'backend_push cannot use its door';
    ASSERT EXISTS (SELECT FROM pg_default_acl
                    WHERE defaclrole = 'backend_owner'::regrole AND defaclobjtype = 'f' AND defaclnamespace = 0),
        'functions of backend_owner would be open to PUBLIC';
END;
$$;

ROLLBACK;
