-- Deploy galaxy-backend:backend/roles to pg

-- Why: the schemas are doors, and a door needs somebody who may open it. Roles belong to the whole cluster and may be there
-- already, because another database of the same cluster uses them; a role that two deployments make at once is no error either.

BEGIN;

DO $$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['backend_owner', 'backend_api', 'backend_worker', 'backend_push'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            RAISE NOTICE 'role % is there already', v_role;
        END;
    END LOOP;
    -- The logins have no password and nothing of their own: the operator decides how they authenticate.
    FOREACH v_role IN ARRAY ARRAY['api', 'worker', 'push'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN', 'galaxy_' || v_role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            RAISE NOTICE 'role % is there already', 'galaxy_' || v_role;
        END;
        IF NOT pg_has_role('galaxy_' || v_role, 'backend_' || v_role, 'member') THEN
            EXECUTE format('GRANT %I TO %I', 'backend_' || v_role, 'galaxy_' || v_role);
        END IF;
    END LOOP;
    -- Everything that follows is made by, and belongs to, the owner; whoever deploys must be able to become it. From Postgres 16
    -- on, whoever makes a role is a member of it, but may not become it before they have granted themselves that.
    IF NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
        EXECUTE format('GRANT backend_owner TO %I', current_user);
    END IF;
END;
$$;

COMMENT ON ROLE backend_owner IS 'Owns every object of the Galaxy backend. Cannot log in.';
COMMENT ON ROLE backend_api IS 'May execute the functions of schema api, and nothing else.';
COMMENT ON ROLE backend_worker IS 'May execute the functions of schema worker and use the job queue in schema procrastinate.';
COMMENT ON ROLE backend_push IS 'May execute the functions of schema push, and nothing else.';
COMMENT ON ROLE galaxy_api IS 'The login of the HTTP program; a member of backend_api only.';
COMMENT ON ROLE galaxy_worker IS 'The login of the job program; a member of backend_worker only.';
COMMENT ON ROLE galaxy_push IS 'The login of the push streamer; a member of backend_push only.';

COMMIT;
