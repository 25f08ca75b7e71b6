-- Test galaxy-backend:backend/states, and every machine that a later change adds: its matrix is made from its rows.

BEGIN;
\ir ../helpers.psql

-- For each machine a table like its own, without the constraints that tie a state to other columns, but with the very trigger.
CREATE TEMPORARY TABLE machines (machine text PRIMARY KEY, table_name regclass, column_name text, copy_name text);
DO $$
DECLARE
    v_trigger record;
    v_copy text;
    v_column name;
BEGIN
    FOR v_trigger IN
        SELECT t.oid, t.tgrelid, string_to_array(encode(t.tgargs, 'escape'), '\000') AS arguments FROM pg_trigger AS t
         WHERE t.tgfoid = 'backend.tg_state__follow_edges()'::regprocedure AND NOT t.tgisinternal
    LOOP
        v_copy := 'copy_of_' || v_trigger.arguments[1];
        EXECUTE format('CREATE TEMPORARY TABLE %I (LIKE %s)', v_copy, v_trigger.tgrelid::regclass);
        FOR v_column IN SELECT attname FROM pg_attribute WHERE attrelid = ('pg_temp.' || v_copy)::regclass AND attnum > 0 AND attnotnull LOOP
            EXECUTE format('ALTER TABLE pg_temp.%I ALTER COLUMN %I DROP NOT NULL', v_copy, v_column);
        END LOOP;
        EXECUTE regexp_replace(pg_get_triggerdef(v_trigger.oid), ' ON [a-z_.]+ ', format(' ON pg_temp.%I ', v_copy));
        INSERT INTO machines VALUES (v_trigger.arguments[1], v_trigger.tgrelid, v_trigger.arguments[2], v_copy);
    END LOOP;
END;
$$;

-- Every state that a machine names, and with it a word that it does not know; null is how a row begins.
CREATE TEMPORARY VIEW states AS
SELECT machine, from_state AS state FROM backend.state_transitions WHERE from_state IS NOT NULL
UNION SELECT machine, to_state FROM backend.state_transitions
UNION SELECT machine, 'no_such_state' FROM backend.state_transitions;
CREATE TEMPORARY VIEW moves AS
SELECT f.machine, f.state AS from_state, t.state AS to_state,
       f.state IS NOT DISTINCT FROM t.state
       OR EXISTS (SELECT FROM backend.state_transitions AS e
                   WHERE e.machine = f.machine AND e.from_state IS NOT DISTINCT FROM f.state AND e.to_state = t.state) AS is_allowed
  FROM (SELECT machine, state FROM states UNION ALL SELECT DISTINCT machine, NULL FROM states) AS f
  JOIN (SELECT machine, state FROM states UNION ALL SELECT DISTINCT machine, NULL FROM states) AS t USING (machine)
 WHERE NOT (f.state IS NULL AND t.state IS NULL) AND f.state IS DISTINCT FROM 'no_such_state';

CREATE FUNCTION pg_temp.move(p_machine text, p_from text, p_to text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    v_machine machines%ROWTYPE;
BEGIN
    SELECT * INTO STRICT v_machine FROM machines WHERE machine = p_machine;
    EXECUTE format('TRUNCATE pg_temp.%I', v_machine.copy_name);
    IF p_from IS NULL THEN
        EXECUTE format('INSERT INTO pg_temp.%I (%I) VALUES (%L)', v_machine.copy_name, v_machine.column_name, p_to);
    ELSE
        PERFORM pg_temp.plant(
            format('INSERT INTO pg_temp.%I (%I) VALUES (%L)', v_machine.copy_name, v_machine.column_name, p_from));
        EXECUTE format('UPDATE pg_temp.%I SET %I = %L', v_machine.copy_name, v_machine.column_name, p_to);
    END IF;
    RETURN 'allowed';
EXCEPTION
    WHEN SQLSTATE 'GX409' THEN
        RETURN CASE SQLERRM WHEN 'invalid_transition' THEN 'refused' ELSE SQLERRM END;
    WHEN check_violation OR foreign_key_violation OR not_null_violation THEN
        RETURN 'refused';
END;
$$;

SELECT plan((SELECT count(*)::integer FROM moves) + (SELECT count(*)::integer FROM machines) + 24);

-- The table and its trigger.
SELECT has_table('backend', 'state_transitions', 'the machines are rows of a table');
SELECT columns_are('backend', 'state_transitions',
    ARRAY['machine', 'action', 'from_state', 'to_state', 'actors', 'description', 'created_at'], 'an edge has no other columns');
SELECT function_lang_is('backend', 'tg_state__follow_edges', '{}'::name[], 'plpgsql', 'the trigger is in PL/pgSQL');
SELECT function_returns('backend', 'tg_state__follow_edges', '{}'::name[], 'trigger', 'it is a trigger function');
SELECT volatility_is('backend', 'tg_state__follow_edges', '{}'::name[], 'volatile', 'it is VOLATILE');
SELECT isnt_definer('backend', 'tg_state__follow_edges', '{}'::name[], 'it has no rights of its own');
SELECT col_not_null('backend', 'state_transitions', c, format('%s is always told', c))
  FROM unnest(ARRAY['machine', 'action', 'to_state', 'description']) AS c;

-- Its constraints.
SELECT is(
    pg_temp.violated(format('INSERT INTO backend.state_transitions (machine, action, from_state, to_state, description) VALUES %s', v)),
    c, d)
  FROM (VALUES
    ($$('Bad name', 'go', NULL, 'one', '-')$$, 'state_transitions_machine_is_snake_case', 'a machine''s name is in snake_case'),
    ($$('test', 'Bad_action', NULL, 'one', '-')$$, 'state_transitions_action_is_kebab_case', 'an action''s name is in kebab-case'),
    ($$('test', 'go', NULL, 'one', '-'), ('test', 'go', NULL, 'one', '-')$$, 'state_transitions_one_per_edge', 'an edge is declared once, one that begins a row too')
  ) AS t(v, c, d);

-- A machine of this test's own: what a refusal says.
INSERT INTO backend.state_transitions (machine, action, from_state, to_state, description) VALUES
    ('test_thing', 'begin', NULL, 'one', '-'), ('test_thing', 'go', 'one', 'two', '-'), ('test_thing', 'run', 'one', 'two', '-'),
    ('test_thing', 'skip', 'one', 'three', '-');
CREATE TEMPORARY TABLE things (state text, note text);
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE ON things
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('test_thing', 'state');
SELECT throws_ok($$INSERT INTO things VALUES ('two')$$, 'GX409', 'invalid_transition', 'a row begins where its machine begins');
SELECT lives_ok($$INSERT INTO things VALUES ('one')$$, 'a row begins by a declared edge');
SELECT is(
    pg_temp.refused($$UPDATE things SET state = 'four'$$),
    jsonb_build_object(
        'sqlstate', 'GX409', 'message', 'invalid_transition', 'detail', 'A test thing cannot go from one to four.',
        'hint', '{"to": "four", "from": "one", "allowed": ["three", "two"], "machine": "test_thing"}'),
    'a refusal says which machine, from where, to where, and where else');
SELECT is(
    pg_temp.refused($$INSERT INTO things VALUES ('two')$$) ->> 'detail', 'A test thing cannot go from nothing to two.',
    'a refused beginning says so');
SELECT is(
    pg_temp.refused($$UPDATE things SET state = NULL$$) ->> 'detail', 'A test thing cannot go from one to nothing.', 'nothing is no state');
SELECT lives_ok($$UPDATE things SET note = 'x'$$, 'another column changes freely');
SELECT lives_ok($$UPDATE things SET state = 'two'$$, 'a row goes on by a declared edge');
SELECT is(
    pg_temp.refused($$UPDATE things SET state = 'one'$$)::jsonb ->> 'hint',
    '{"to": "one", "from": "two", "allowed": [], "machine": "test_thing"}', 'where no edge leads on, none is allowed');
DELETE FROM backend.state_transitions WHERE machine = 'test_thing';

-- Every machine there is.
SELECT cmp_ok((SELECT count(*) FROM machines), '>=', 2::bigint, 'there are machines');
SELECT set_eq('SELECT DISTINCT machine FROM backend.state_transitions', 'SELECT machine FROM machines', 'each is held by a trigger');
SELECT is_empty(
    $$SELECT DISTINCT machine FROM backend.state_transitions EXCEPT SELECT machine FROM backend.state_transitions WHERE from_state IS NULL$$,
    'each has a beginning');
SELECT is_empty(
    format($$WITH RECURSIVE reached AS (
        SELECT machine, to_state FROM backend.state_transitions WHERE from_state IS NULL
        UNION SELECT t.machine, t.to_state FROM reached AS r JOIN backend.state_transitions AS t ON (t.machine, t.from_state) = (r.machine, r.to_state)
    )
    SELECT s.state FROM states AS s WHERE s.machine = %L AND s.state <> 'no_such_state'
    EXCEPT SELECT r.to_state FROM reached AS r WHERE r.machine = %1$L$$, machine),
    format('every state of a %s can be reached', machine))
  FROM machines ORDER BY machine;
SELECT is(
    pg_temp.move(machine, from_state, to_state),
    CASE WHEN is_allowed THEN 'allowed' ELSE 'refused' END,
    format('a %s %s from %s to %s', machine, CASE WHEN is_allowed THEN 'may go' ELSE 'may not go' END,
           coalesce(from_state, 'nothing'), coalesce(to_state, 'nothing')))
  FROM moves
 ORDER BY machine, from_state NULLS FIRST, to_state;

SELECT * FROM finish();
ROLLBACK;
