-- Verify galaxy-backend:backend/states on pg

BEGIN;
SET LOCAL ROLE backend_owner;

INSERT INTO backend.state_transitions (machine, action, from_state, to_state, description)
VALUES ('verify', 'begin', NULL, 'one', '-'), ('verify', 'go', 'one', 'two', '-');
CREATE TEMPORARY TABLE verify_states (state text NOT NULL);
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE ON verify_states
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('verify', 'state');

DO $$
BEGIN
    INSERT INTO verify_states VALUES ('one');
    UPDATE verify_states SET state = 'two';
    BEGIN
        UPDATE verify_states SET state = 'one';
        ASSERT false, 'a row left its machine';
    EXCEPTION WHEN SQLSTATE 'GX409' THEN
        NULL;
    END;
END;
$$;

ROLLBACK;
