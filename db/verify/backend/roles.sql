-- Verify galaxy-backend:backend/roles on pg

BEGIN;

DO $$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['backend_owner', 'backend_api', 'backend_worker', 'backend_push'] LOOP
        ASSERT (SELECT NOT rolcanlogin AND NOT rolsuper FROM pg_roles WHERE rolname = v_role),
            format('role %s is missing, or can log in', v_role);
    END LOOP;
    FOREACH v_role IN ARRAY ARRAY['api', 'worker', 'push'] LOOP
        ASSERT (SELECT rolcanlogin AND NOT rolsuper FROM pg_roles WHERE rolname = 'galaxy_' || v_role),
            format('login galaxy_%s is missing, or is more than a login', v_role);
        ASSERT (SELECT array_agg(r.rolname::text) = ARRAY['backend_' || v_role]
                  FROM pg_auth_members AS m
                  JOIN pg_roles AS r ON r.oid = m.roleid
                 WHERE m.member = ('galaxy_' || v_role)::regrole),
            format('login galaxy_%s must be a member of backend_%s and of nothing else', v_role, v_role);
    END LOOP;
    ASSERT pg_has_role(current_user, 'backend_owner', 'member'), 'whoever deploys must be a member of backend_owner';
END;
$$;

ROLLBACK;
