-- Test of what every change must keep: the doors, the grants, the form of functions and tables. All of it is read from the
-- catalog, so that what is added later is covered without a line here. What may differ is named, with its reason.

BEGIN;
-- The catalog writes a name with its schema unless the search path finds it.
SET LOCAL search_path = pgtap;
SELECT plan(48);

CREATE TEMPORARY VIEW door_functions AS
SELECT p.oid, p.oid::regprocedure::text AS signature, n.nspname::text AS door, ('backend_' || n.nspname)::regrole AS door_role,
       p.proname, p.proowner, p.prokind, p.prosecdef, p.proconfig, p.prolang, p.proacl, p.prosrc, p.proargnames
  FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
 WHERE n.nspname IN ('api', 'worker', 'push');
CREATE TEMPORARY VIEW our_functions AS
SELECT p.oid, p.oid::regprocedure::text AS signature, p.pronamespace = 'backend'::regnamespace AS is_helper, p.proname, p.proowner,
       p.prosecdef, p.proconfig, p.prolang, p.proacl, p.prosrc, p.prosqlbody, p.provolatile, p.prorettype, p.proargtypes,
       p.proallargtypes, p.proargnames, p.proargmodes
  FROM pg_proc AS p
 WHERE p.pronamespace IN ('backend'::regnamespace, 'api'::regnamespace, 'worker'::regnamespace, 'push'::regnamespace);
CREATE TEMPORARY VIEW our_tables AS
SELECT c.oid, c.relname::text AS table_name FROM pg_class AS c
 WHERE c.relnamespace = 'backend'::regnamespace AND c.relkind IN ('r', 'p');
CREATE TEMPORARY VIEW our_columns AS
SELECT t.oid AS table_id, t.table_name, a.attname::text AS column_name, a.attnum, a.attnotnull AS is_required, y.oid AS type_id,
       y.typname::text AS type_name, y.typbasetype, pg_get_expr(d.adbin, d.adrelid) AS default_value
  FROM our_tables AS t
  JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type AS y ON y.oid = a.atttypid
  LEFT JOIN pg_attrdef AS d ON d.adrelid = t.oid AND d.adnum = a.attnum;
CREATE TEMPORARY VIEW our_triggers AS
SELECT t.oid AS table_id, t.table_name, g.tgname::text AS trigger_name, g.tgfoid::regproc::text AS function_name, g.tgtype, g.tgenabled,
       g.tgqual IS NOT NULL AS is_conditional, g.tgattr::text AS only_columns,
       string_to_array(encode(g.tgargs, 'escape'), '\000') AS arguments
  FROM our_tables AS t JOIN pg_trigger AS g ON g.tgrelid = t.oid AND NOT g.tgisinternal;
CREATE TEMPORARY VIEW door_roles AS
SELECT r.role, r.role::regrole AS role_id, r.schema FROM (VALUES
    ('backend_api', 'api'), ('backend_worker', 'worker'), ('backend_push', 'push'),
    ('galaxy_api', 'api'), ('galaxy_worker', 'worker'), ('galaxy_push', 'push'), ('public', '-')) AS r(role, schema);

-- The rest would pass over nothing.
SELECT cmp_ok((SELECT count(*) FROM door_functions), '>=', 30::bigint, 'there are functions in the doors');
SELECT cmp_ok((SELECT count(*) FROM our_functions WHERE is_helper), '>=', 35::bigint, 'there are helpers');
SELECT cmp_ok((SELECT count(*) FROM our_tables), '>=', 27::bigint, 'there are tables');
SELECT cmp_ok((SELECT count(*) FROM our_triggers), '>=', 9::bigint, 'there are triggers');

-- The doors.
SELECT is_empty(
    $$SELECT c.oid::regclass, c.relkind FROM pg_class AS c
       WHERE c.relnamespace IN ('api'::regnamespace, 'worker'::regnamespace, 'push'::regnamespace) AND c.relkind <> 'c'$$,
    'a door holds functions, and the types that they answer with, and nothing else');
SELECT is_empty(
    $$SELECT signature FROM door_functions WHERE prokind <> 'f' OR NOT prosecdef$$,
    'every function of a door is SECURITY DEFINER');
SELECT is_empty(
    $$SELECT signature FROM door_functions WHERE prolang <> (SELECT oid FROM pg_language WHERE lanname = 'plpgsql')$$,
    'every function of a door is in PL/pgSQL');
SELECT is_empty(
    $$SELECT signature, proconfig FROM door_functions
       WHERE proconfig IS NULL OR proconfig[1] !~ '^search_path=backend, (procrastinate, )?pg_catalog, pg_temp$'
          OR (array_length(proconfig, 1) <> 1 AND signature <> 'push.events_sequence(integer)')$$,
    'every function of a door has its search path pinned, and sets nothing else but, where a test says why, how it is planned');
SELECT is_empty(
    $$SELECT signature FROM door_functions WHERE coalesce(obj_description(oid, 'pg_proc'), '') = ''$$,
    'every function of a door has a comment');
SELECT is_empty(
    $$SELECT f.signature, coalesce(nullif(a.grantee, 0)::regrole::text, 'PUBLIC')
        FROM door_functions AS f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) AS a
       WHERE a.grantee NOT IN (f.proowner, f.door_role) OR a.is_grantable$$,
    'every function of a door is granted to the door''s role only');
SELECT is_empty(
    $$SELECT f.signature FROM door_functions AS f WHERE NOT has_function_privilege(f.door_role, f.oid, 'EXECUTE')$$,
    'every function of a door can be executed by the door''s role');
SELECT is_empty(
    $$SELECT door, proname FROM door_functions GROUP BY door, proname HAVING count(*) > 1$$,
    'a name means one function of a door: the contract''s operations are found by it');

-- The guards. Functions of the internal group serve the gateway, which must see an account whatever its state.
CREATE TEMPORARY TABLE internal_group (signature text);
INSERT INTO internal_group VALUES
    ('api.account_internal_get(uuid)'), ('api.session_revoke_all(uuid,jsonb)'), ('api.identity_link(uuid,jsonb)'),
    ('api.identity_unlink(uuid,text)');
SELECT is_empty(
    $$SELECT signature FROM internal_group EXCEPT SELECT signature FROM door_functions WHERE 'p_user_id' = ANY (proargnames)$$,
    'the exceptions of the internal group are functions');
SELECT is_empty(
    $$SELECT signature FROM door_functions
       WHERE door = 'api' AND 'p_user_id' = ANY (proargnames) AND signature NOT IN (SELECT signature FROM internal_group)
         -- To an administrator a person is an object.
         AND NOT 'p_admin' = ANY (proargnames)
         -- A transition is one call, of what looks at the account before the game.
         AND prosrc !~ '^\s*BEGIN\s+RETURN game_command\(p_game_id, ''[a-z-]+'', p_user_id(, ''\w+'')?\);\s+END;\s*$'
         AND (prosrc !~ '\maccount_require\(p_user_id\)'
              OR left(prosrc, strpos(prosrc, 'account_require(')) ~ '\m(SELECT|INSERT|UPDATE|DELETE)\M')$$,
    'every function for a person looks at the person''s account before it reads or writes anything');
SELECT is_empty(
    $$SELECT signature FROM door_functions
       WHERE door = 'api' AND 'p_admin' = ANY (proargnames)
         AND (prosrc !~ '\m(administrator_require|game_command_by_admin)\(p_admin\M'
              OR substring(prosrc FROM '^.*?\m(?:administrator_require|game_command_by_admin)\(') ~ '\m(SELECT|INSERT|UPDATE|DELETE)\M')$$,
    'every function for an administrator looks at the administrator before it reads or writes anything');
SELECT is_empty(
    $$SELECT signature FROM door_functions WHERE door <> 'api' AND proargnames && ARRAY['p_user_id', 'p_admin']$$,
    'only the API speaks for people');

-- The grants.
SELECT is_empty(
    $$SELECT c.oid::regclass, a.grantee::regrole, a.privilege_type FROM pg_class AS c, aclexplode(c.relacl) AS a
       WHERE c.relnamespace = 'backend'::regnamespace AND a.grantee <> c.relowner
      UNION ALL
      SELECT t.attrelid::regclass, a.grantee::regrole, a.privilege_type
        FROM pg_attribute AS t JOIN pg_class AS c ON c.oid = t.attrelid, aclexplode(t.attacl) AS a
       WHERE c.relnamespace = 'backend'::regnamespace$$,
    'no table, view, sequence or column of backend is granted to anybody');
SELECT is_empty(
    $$SELECT f.signature, coalesce(nullif(a.grantee, 0)::regrole::text, 'PUBLIC')
        FROM our_functions AS f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) AS a
       WHERE f.is_helper AND a.grantee <> f.proowner$$,
    'no function of backend is granted to anybody');
SELECT is_empty(
    $$SELECT t.oid::regtype, a.grantee FROM pg_type AS t, aclexplode(t.typacl) AS a
       WHERE t.typnamespace = 'backend'::regnamespace AND a.grantee <> t.typowner$$,
    'no type of backend is granted to anybody');
SELECT is_empty(
    $$SELECT r.role, c.oid::regclass
        FROM door_roles AS r, pg_class AS c
       WHERE c.relnamespace IN ('backend'::regnamespace, 'api'::regnamespace, 'worker'::regnamespace, 'push'::regnamespace,
                                'sqitch'::regnamespace, 'public'::regnamespace)
         AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
         AND (has_table_privilege(r.role, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
              OR has_any_column_privilege(r.role, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))$$,
    'no role of a door, no login and not PUBLIC has any right on any table');
SELECT is_empty(
    $$SELECT r.role, c.oid::regclass FROM door_roles AS r, pg_class AS c
       WHERE c.relnamespace = 'procrastinate'::regnamespace AND c.relkind = 'r'
         AND (r.schema <> 'worker' AND has_table_privilege(r.role, c.oid, 'SELECT, INSERT, UPDATE, DELETE')
              OR has_table_privilege(r.role, c.oid, 'TRUNCATE, REFERENCES, TRIGGER'))$$,
    'the queue''s tables are the worker''s, to read and write');
SELECT is_empty(
    $$SELECT r.role, c.oid::regclass FROM door_roles AS r, pg_class AS c
       WHERE c.relnamespace IN ('backend'::regnamespace, 'procrastinate'::regnamespace) AND c.relkind = 'S'
         AND has_sequence_privilege(r.role, c.oid, 'USAGE, SELECT, UPDATE')
         AND NOT (r.schema = 'worker' AND c.relnamespace = 'procrastinate'::regnamespace
                  AND NOT has_sequence_privilege(r.role, c.oid, 'UPDATE'))$$,
    'no sequence can be set by anybody, and used only by the worker, the queue''s');
SELECT is_empty(
    $$SELECT r.role, p.oid::regprocedure FROM door_roles AS r, pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
       WHERE n.nspname IN ('backend', 'api', 'worker', 'push', 'procrastinate')
         AND has_function_privilege(r.role, p.oid, 'EXECUTE')
             IS DISTINCT FROM (n.nspname = r.schema OR n.nspname = 'procrastinate' AND r.schema = 'worker')$$,
    'each role and login can execute all of its own door and nothing of another''s, and PUBLIC nothing at all');
SELECT is_empty(
    $$SELECT r.role FROM door_roles AS r
       WHERE has_database_privilege(r.role, current_database(), 'CREATE')
          OR EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname !~ '^pg_(temp|toast_temp)_' AND has_schema_privilege(r.role, n.oid, 'CREATE'))$$,
    'no role of a door can create anything that stays');
SELECT is_empty(
    $$SELECT c.oid::regclass::text FROM pg_class AS c
       WHERE c.relnamespace IN ('backend'::regnamespace, 'api'::regnamespace, 'worker'::regnamespace, 'push'::regnamespace,
                                'procrastinate'::regnamespace) AND c.relowner <> 'backend_owner'::regrole
      UNION ALL
      SELECT p.oid::regprocedure::text FROM pg_proc AS p
       WHERE p.pronamespace IN ('backend'::regnamespace, 'api'::regnamespace, 'worker'::regnamespace, 'push'::regnamespace,
                                'procrastinate'::regnamespace) AND p.proowner <> 'backend_owner'::regrole
      UNION ALL
      SELECT t.oid::regtype::text FROM pg_type AS t
       WHERE t.typnamespace IN ('backend'::regnamespace, 'api'::regnamespace, 'worker'::regnamespace, 'push'::regnamespace,
                                'procrastinate'::regnamespace) AND t.typowner <> 'backend_owner'::regrole$$,
    'everything belongs to backend_owner');
SELECT is_empty(
    $$SELECT c.oid::regclass::text FROM pg_class AS c
       WHERE c.relowner = 'backend_owner'::regrole
         AND c.relnamespace::regnamespace::text NOT IN ('backend', 'api', 'worker', 'push', 'procrastinate', 'pg_toast')
      UNION ALL
      SELECT p.oid::regprocedure::text FROM pg_proc AS p
       WHERE p.proowner = 'backend_owner'::regrole
         AND p.pronamespace::regnamespace::text NOT IN ('backend', 'api', 'worker', 'push', 'procrastinate')$$,
    'nothing of ours is outside our schemas');
SELECT is_empty(
    $$SELECT extname FROM pg_extension WHERE extname NOT IN ('plpgsql', 'pgtap', 'plpgsql_check')$$,
    'no extension is needed beside those of the tests');

-- The form of functions.
SELECT is_empty(
    -- But for the trigger of a table that is not only ours to write: Procrastinate's worker defers jobs too.
    $$SELECT signature FROM our_functions WHERE is_helper AND prosecdef AND signature <> 'backend.tg_procrastinate_jobs__wake()'$$,
    'no helper is SECURITY DEFINER');
SELECT is_empty(
    $$SELECT signature, proconfig FROM our_functions
       WHERE is_helper AND prosqlbody IS NULL
         AND (proconfig IS NULL OR array_length(proconfig, 1) <> 1
              OR proconfig[1] !~ '^search_path=backend, (procrastinate, )?pg_catalog, pg_temp$')$$,
    'every helper whose names are not bound when it is made has its search path pinned');
SELECT is_empty(
    $$SELECT signature FROM our_functions WHERE coalesce(obj_description(oid, 'pg_proc'), '') = ''$$,
    'every function has a comment');
SELECT is_empty(
    $$SELECT f.signature, f.proargnames[i]
        FROM our_functions AS f, generate_subscripts(f.proargnames, 1) AS i
       WHERE coalesce(f.proargmodes[i], 'i') IN ('i', 'b') AND f.proargnames[i] !~ '^p_'$$,
    'every argument''s name begins with p_');
SELECT is_empty(
    $$SELECT signature FROM our_functions WHERE (prorettype = 'trigger'::regtype) <> (proname ~ '^tg_[a-z_]+__[a-z_]+$')$$,
    'trigger functions, and only they, are called tg_<table>__<what>');
SELECT is_empty(
    $$SELECT signature FROM our_functions
       WHERE provolatile <> 'v' AND prosrc ~ '\m(INSERT|UPDATE|DELETE|TRUNCATE|NOTIFY|pg_notify|nextval|set_config)\M'$$,
    'a function that is not VOLATILE writes nothing and notifies nobody');

-- The form of tables.
SELECT is_empty(
    $$SELECT c.oid::regclass::text FROM pg_class AS c
       WHERE c.relnamespace = 'backend'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
         AND coalesce(obj_description(c.oid, 'pg_class'), '') = ''
      UNION ALL
      SELECT t.oid::regtype::text FROM pg_type AS t
       WHERE t.typnamespace IN ('backend'::regnamespace, 'api'::regnamespace) AND t.typtype = 'd'
         AND coalesce(obj_description(t.oid, 'pg_type'), '') = ''$$,
    'every table, view and domain says what it is');
-- A transition may begin a row (from null), and no column of a primary key may be null: it has a unique constraint instead.
SELECT is_empty(
    $$SELECT t.table_name FROM our_tables AS t
       WHERE t.table_name <> 'state_transitions'
         AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conrelid = t.oid AND c.contype = 'p')$$,
    'every table has a primary key');
SELECT is_empty(
    $$SELECT c.table_name, c.column_name FROM our_columns AS c
        JOIN pg_constraint AS p ON p.conrelid = c.table_id AND p.contype = 'p' AND p.conkey = ARRAY[c.attnum]
       WHERE c.type_name = 'uuid' AND c.default_value IS DISTINCT FROM 'backend.uuid_v7()'
         AND NOT EXISTS (SELECT FROM pg_constraint AS f WHERE f.conrelid = c.table_id AND f.contype = 'f' AND c.attnum = ANY (f.conkey))$$,
    'an id of a table''s own is a UUID of version 7');
-- The clock is made before backend.now(); an event of the stream keeps the time of its cause.
SELECT is_empty(
    $$SELECT t.table_name, c.default_value FROM our_tables AS t
        LEFT JOIN our_columns AS c ON c.table_id = t.oid AND c.column_name = 'created_at'
       WHERE NOT (coalesce(c.type_name, '') = 'timestamptz' AND c.is_required
                  AND (c.default_value IS NOT DISTINCT FROM 'backend.now()' OR t.table_name IN ('clock', 'push_events')))$$,
    'every table has created_at, which is backend.now() by default');
SELECT is_empty(
    $$SELECT c.table_name FROM our_columns AS c
       WHERE c.column_name = 'updated_at'
         AND NOT (c.type_name = 'timestamptz' AND c.is_required AND c.default_value = 'backend.now()'
                  AND EXISTS (SELECT FROM our_triggers AS g
                               WHERE g.table_id = c.table_id AND g.function_name = 'backend.tg_row__touch'
                                 AND g.tgtype = 19 AND g.only_columns = '' AND NOT g.is_conditional AND g.tgenabled = 'O'))$$,
    'every updated_at is set by the touch trigger, before every update');
-- The clock is moved by tests only.
SELECT is_empty(
    $$WITH bodies AS (SELECT regexp_replace(pg_get_functiondef(f.oid), '--[^\n]*', '', 'g') AS body FROM our_functions AS f),
           changed AS (SELECT (regexp_matches(body, '\mUPDATE (?:backend\.)?([a-z_]+)', 'g'))[1] AS table_name FROM bodies
                       UNION SELECT (regexp_matches(body, '\mINSERT INTO (?:backend\.)?([a-z_]+)\M[^;]*\mDO UPDATE\M', 'g'))[1] FROM bodies)
      SELECT t.table_name FROM our_tables AS t JOIN changed USING (table_name)
       WHERE t.table_name <> 'clock'
         AND NOT EXISTS (SELECT FROM our_columns AS c WHERE c.table_id = t.oid AND c.column_name = 'updated_at')$$,
    'every table whose rows a function changes has updated_at');
SELECT is_empty(
    $$SELECT g.table_name FROM our_triggers AS g
       WHERE g.function_name = 'backend.tg_row__touch'
         AND NOT EXISTS (SELECT FROM our_columns AS c WHERE c.table_id = g.table_id AND c.column_name = 'updated_at')$$,
    'no touch trigger is without an updated_at');
SELECT is_empty(
    $$SELECT f.conrelid::regclass, f.conname FROM pg_constraint AS f
       WHERE f.contype = 'f' AND f.connamespace = 'backend'::regnamespace
         AND NOT EXISTS (
             SELECT FROM pg_index AS i
              WHERE i.indrelid = f.conrelid AND i.indisvalid
                AND (i.indkey::int2[])[0:cardinality(f.conkey) - 1] @> f.conkey
                AND (i.indkey::int2[])[0:cardinality(f.conkey) - 1] <@ f.conkey
                AND (i.indpred IS NULL OR cardinality(f.conkey) = 1 AND pg_get_expr(i.indpred, i.indrelid) = (
                        SELECT format('(%I IS NOT NULL)', a.attname) FROM pg_attribute AS a
                         WHERE a.attrelid = f.conrelid AND a.attnum = f.conkey[1])))$$,
    'every foreign key has an index that is led by its columns');
SELECT is_empty(
    $$SELECT conrelid::regclass, conname FROM pg_constraint
       WHERE connamespace = 'backend'::regnamespace AND contype = 'c' AND (conname ~ '_check[0-9]*$' OR NOT convalidated)$$,
    'every check has a name that states its rule, and holds for the rows that were there before it');
SELECT is_empty(
    $$SELECT e.constraint_name FROM backend.constraint_errors AS e
       WHERE NOT EXISTS (SELECT FROM pg_constraint AS c
                          WHERE c.connamespace = 'backend'::regnamespace AND c.conname = e.constraint_name)
         AND NOT EXISTS (SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
                          WHERE i.indisunique AND c.relnamespace = 'backend'::regnamespace AND c.relname = e.constraint_name)$$,
    'every constraint that has a meaning for callers exists');
SELECT is_empty(
    $$SELECT c.table_name, c.column_name FROM our_columns AS c WHERE c.type_name = 'timestamp' OR c.typbasetype = 'timestamp'::regtype
      UNION ALL
      SELECT f.signature, NULL FROM our_functions AS f
       WHERE 'timestamp'::regtype = ANY (coalesce(f.proallargtypes, f.proargtypes::oid[]) || f.prorettype)$$,
    'no time is without its zone');
SELECT is_empty(
    $$SELECT table_name, trigger_name FROM our_triggers WHERE tgenabled <> 'O'$$,
    'no trigger sleeps');

-- The state machines. A column called status or state that holds a word moves by declared edges.
SELECT is_empty(
    $$SELECT c.table_name, c.column_name FROM our_columns AS c
       WHERE c.column_name IN ('status', 'state') AND 'text'::regtype IN (c.type_id, c.typbasetype)
         AND NOT EXISTS (
             SELECT FROM our_triggers AS g
              WHERE g.table_id = c.table_id AND g.function_name = 'backend.tg_state__follow_edges' AND g.arguments[2] = c.column_name
                AND g.tgtype = 23 AND g.only_columns IN ('', c.attnum::text) AND NOT g.is_conditional AND g.tgenabled = 'O')$$,
    'every column of a state has the trigger that holds it to its machine, on every insert and update');
SELECT set_eq(
    $$SELECT DISTINCT machine FROM backend.state_transitions$$,
    $$SELECT arguments[1] FROM our_triggers WHERE function_name = 'backend.tg_state__follow_edges'$$,
    'every machine has its column, and every such column its machine');
SELECT is_empty(
    $$SELECT c.table_name, c.default_value FROM our_triggers AS g
        JOIN our_columns AS c ON c.table_id = g.table_id AND c.column_name = g.arguments[2]
       WHERE g.function_name = 'backend.tg_state__follow_edges'
         AND c.default_value IS NOT NULL
         AND NOT EXISTS (SELECT FROM backend.state_transitions AS t
                          WHERE t.machine = g.arguments[1] AND t.from_state IS NULL
                            AND c.default_value ~ ('^' || quote_literal(t.to_state) || '::'))
      UNION ALL
      SELECT c.table_name, 'may be null' FROM our_triggers AS g
        JOIN our_columns AS c ON c.table_id = g.table_id AND c.column_name = g.arguments[2]
       WHERE g.function_name = 'backend.tg_state__follow_edges' AND NOT c.is_required$$,
    'a state is never null, and its default is where its machine begins');

SELECT * FROM finish();
ROLLBACK;
