-- Test galaxy-backend:backend/invariants

BEGIN;
SELECT plan(13);

-- Attributes.
SELECT has_view('backend', 'invariants', 'what must always hold is a view of what breaks it');
SELECT columns_are('backend', 'invariants', ARRAY['invariant', 'object_id', 'details'], 'it names the invariant, the object and details');
SELECT has_function('backend', 'invariants_collect', '{}'::name[], 'it is collected by a function');
SELECT volatility_is('backend', 'invariants_collect', '{}'::name[], 'stable', 'which only reads');
SELECT isnt_definer('backend', 'invariants_collect', '{}'::name[], 'with no rights of its own');

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM backend.invariants', '42501', NULL, 'backend_api cannot read it');
SET LOCAL ROLE backend_worker;
SELECT throws_ok('SELECT FROM backend.invariants', '42501', NULL, 'backend_worker reads it through its door only');
RESET ROLE;

-- Behaviour.
SELECT is_empty('SELECT * FROM backend.invariants', 'a fresh database breaks nothing');
SELECT cmp_ok(
    (SELECT count(*) FROM pg_class WHERE relnamespace = 'backend'::regnamespace AND relkind = 'v' AND relname ~ '^invariants_'),
    '>=', 4::bigint, 'there are views of areas');
SELECT is_empty(
    $$SELECT c.oid::regclass FROM pg_class AS c
       WHERE c.relnamespace = 'backend'::regnamespace AND c.relkind = 'v' AND c.relname ~ '^invariants_'
         AND (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0)
             IS DISTINCT FROM ARRAY['invariant', 'object_id', 'details']$$,
    'each has the same columns');

SET LOCAL ROLE backend_owner;
CREATE VIEW backend.invariants_new_area AS
SELECT 'new_rule' AS invariant, gen_random_uuid() AS object_id, 7 AS details UNION ALL SELECT 'other_rule', gen_random_uuid(), NULL;
CREATE VIEW backend.invariantsx AS SELECT 'not_of_an_area' AS invariant, 'x' AS object_id, 'y' AS details;
CREATE TABLE backend.invariants_table (invariant text, object_id text, details text);
INSERT INTO backend.invariants_table VALUES ('not_a_view', 'x', 'y');
RESET ROLE;
SELECT bag_eq(
    'SELECT invariant, details FROM backend.invariants', $$VALUES ('new_rule', '7'), ('other_rule', NULL)$$,
    'a view of a new area is found by its name, whatever the types of its columns');
SET LOCAL ROLE backend_worker;
SELECT is((SELECT count(*) FROM worker.invariants_list()), 2::bigint, 'and read through the worker''s door');
RESET ROLE;
DROP VIEW backend.invariants_new_area;
SELECT is_empty('SELECT * FROM backend.invariants', 'and gone with it');

SELECT * FROM finish();
ROLLBACK;
