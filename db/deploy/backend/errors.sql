-- Deploy galaxy-backend:backend/errors to pg
-- requires: backend/clock

-- Why: one way to refuse. An SQLSTATE of class GX carries the HTTP status in its last three characters, MESSAGE the code for
-- machines, DETAIL the sentence for people, HINT the context as JSON. What a constraint refuses is named by the constraint.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.fail(p_status integer, p_code text, p_detail text, p_context jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'GX' || lpad(p_status::text, 3, '0'),
        MESSAGE = p_code,
        DETAIL = p_detail,
        HINT = coalesce(p_context::text, '');
END;
$$;
COMMENT ON FUNCTION backend.fail(integer, text, text, jsonb) IS
    'Refuses: raises SQLSTATE GX<status> with the code, a sentence for people and context. Never returns.';

CREATE TYPE api.reply AS (status integer, body text, location text);
COMMENT ON TYPE api.reply IS
    'An answer whose HTTP status varies: the status, the body as JSON text (null for none), the Location of what was created.';

CREATE FUNCTION backend.refusal(p_status integer, p_code text, p_detail text, p_context jsonb DEFAULT NULL) RETURNS api.reply
LANGUAGE sql STABLE SECURITY INVOKER
RETURN ROW(
    p_status,
    json_build_object('code', p_code, 'message', p_detail, 'details', coalesce(p_context, '{}'))::text,
    NULL
)::api.reply;
COMMENT ON FUNCTION backend.refusal(integer, text, text, jsonb) IS
    'A refusal that is returned, not raised, so that what the function has written (a counted attempt) stays.';

CREATE TABLE backend.constraint_errors (
    constraint_name text PRIMARY KEY,
    status integer NOT NULL CONSTRAINT constraint_errors_status_is_a_refusal CHECK (status BETWEEN 400 AND 499),
    code text NOT NULL CONSTRAINT constraint_errors_code_is_snake_case CHECK (code ~ '^[a-z][a-z0-9_]*$'),
    message text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.constraint_errors IS
    'What a caller is told when a constraint refuses. A constraint that is not here is a fault of ours: 500.';

COMMIT;
