-- Verify galaxy-backend:backend/errors on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_code text;
    v_detail text;
    v_hint text;
BEGIN
    BEGIN
        PERFORM backend.fail(418, 'teapot', 'Short and stout.', '{"a": 1}');
        ASSERT false, 'backend.fail() did not raise';
    EXCEPTION WHEN SQLSTATE 'GX418' THEN
        GET STACKED DIAGNOSTICS v_code = MESSAGE_TEXT, v_detail = PG_EXCEPTION_DETAIL, v_hint = PG_EXCEPTION_HINT;
    END;
    ASSERT (v_code, v_detail, v_hint) = ('teapot', 'Short and stout.', '{"a": 1}'), 'backend.fail() says something else';
    ASSERT (backend.refusal(400, 'a', 'b')).status = 400, 'backend.refusal() does not answer';
    PERFORM FROM backend.constraint_errors;
    PERFORM 'api.reply'::regtype;
END;
$$;

ROLLBACK;
