-- Deploy galaxy-backend:backend/states to pg
-- requires: backend/errors

-- Why: states move only along declared edges. A machine is rows of this table; a trigger on the state column holds every
-- writer to them, a migration and a hand-typed UPDATE as well. The diagrams in the docs are made from these rows.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.state_transitions (
    machine text NOT NULL CONSTRAINT state_transitions_machine_is_snake_case CHECK (machine ~ '^[a-z][a-z0-9_]*$'),
    action text NOT NULL CONSTRAINT state_transitions_action_is_kebab_case CHECK (action ~ '^[a-z][a-z0-9-]*$'),
    from_state text,
    to_state text NOT NULL,
    actors text[] NOT NULL DEFAULT '{}',
    description text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT state_transitions_one_per_edge UNIQUE NULLS NOT DISTINCT (machine, action, from_state, to_state)
);
COMMENT ON TABLE backend.state_transitions IS 'The edges of every state machine.';
COMMENT ON COLUMN backend.state_transitions.actors IS 'Who may take the edge, where a guard asks: owner, admin, member, applicant, invitee, job, sweeper.';
COMMENT ON COLUMN backend.state_transitions.from_state IS 'Null where the edge is how a row begins.';

CREATE FUNCTION backend.tg_state__follow_edges() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_machine text := TG_ARGV[0];
    v_column text := TG_ARGV[1];
    v_from text := CASE TG_OP WHEN 'UPDATE' THEN to_jsonb(OLD) ->> v_column END;
    v_to text := to_jsonb(NEW) ->> v_column;
BEGIN
    IF TG_OP = 'UPDATE' AND v_from IS NOT DISTINCT FROM v_to THEN
        RETURN NEW;
    END IF;
    IF NOT EXISTS (
        SELECT FROM state_transitions AS t
         WHERE t.machine = v_machine AND t.from_state IS NOT DISTINCT FROM v_from AND t.to_state = v_to
    ) THEN
        PERFORM fail(
            409, 'invalid_transition',
            format('A %s cannot go from %s to %s.', replace(v_machine, '_', ' '), coalesce(v_from, 'nothing'), coalesce(v_to, 'nothing')),
            jsonb_build_object(
                'machine', v_machine, 'from', v_from, 'to', v_to,
                'allowed', (SELECT coalesce(jsonb_agg(DISTINCT t.to_state), '[]')
                              FROM state_transitions AS t
                             WHERE t.machine = v_machine AND t.from_state IS NOT DISTINCT FROM v_from)
            )
        );
    END IF;
    RETURN NEW;
END;
$$;
COMMENT ON FUNCTION backend.tg_state__follow_edges() IS
    'Before insert or update, with arguments (machine, column): refuses a state that no edge leads to. GX409 invalid_transition.';

COMMIT;
