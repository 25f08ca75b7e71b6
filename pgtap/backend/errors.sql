-- Test galaxy-backend:backend/errors

BEGIN;
SELECT plan(28);
\ir ../helpers.psql

-- Attributes.
SELECT function_returns('backend', 'fail', ARRAY['integer', 'text', 'text', 'jsonb'], 'void', 'backend.fail() returns nothing');
SELECT function_lang_is('backend', 'fail', ARRAY['integer', 'text', 'text', 'jsonb'], 'plpgsql', 'backend.fail() is in PL/pgSQL');
-- An immutable one would be evaluated while a statement is planned, and refuse where nothing is wrong.
SELECT volatility_is('backend', 'fail', ARRAY['integer', 'text', 'text', 'jsonb'], 'stable', 'backend.fail() is STABLE');
SELECT function_returns('backend', 'refusal', ARRAY['integer', 'text', 'text', 'jsonb'], 'api.reply', 'backend.refusal() is a reply');
SELECT volatility_is('backend', 'refusal', ARRAY['integer', 'text', 'text', 'jsonb'], 'stable', 'backend.refusal() is STABLE');
SELECT has_composite('api', 'reply', 'a reply is a type of the door');
SELECT results_eq(
    $$SELECT attname::text COLLATE "C", format_type(atttypid, NULL)::text COLLATE "C"
        FROM pg_attribute WHERE attrelid = 'api.reply'::regclass ORDER BY attnum$$,
    $$VALUES ('status' COLLATE "C", 'integer' COLLATE "C"), ('body', 'text'), ('location', 'text')$$,
    'it is a status, a body and a location');
SELECT has_table('backend', 'constraint_errors', 'what a constraint''s refusal means is a table');
SELECT columns_are('backend', 'constraint_errors', ARRAY['constraint_name', 'status', 'code', 'message', 'created_at'],
    'by the constraint''s name: status, code, message');
SELECT col_not_null('backend', 'constraint_errors', c, format('%s is always told', c)) FROM unnest(ARRAY['status', 'code', 'message']) AS c;

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.fail(400, 'a', 'b')$$, '42501', NULL, 'backend_api cannot call the helpers');
SELECT throws_ok($$INSERT INTO backend.constraint_errors VALUES ('a', 400, 'a', 'a')$$, '42501', NULL,
    'backend_api cannot say what a refusal means');
SELECT lives_ok($$SELECT NULL::api.reply$$, 'backend_api can read a reply');
RESET ROLE;

-- backend.fail()
SELECT is(
    pg_temp.refused($$SELECT backend.fail(404, 'thing_not_found', 'There is no such thing.', '{"thing": 1}')$$),
    jsonb_build_object('sqlstate', 'GX404', 'message', 'thing_not_found', 'detail', 'There is no such thing.', 'hint', '{"thing": 1}'),
    'a refusal is a status, a code, a sentence and its context');
SELECT is(
    pg_temp.refused($$SELECT backend.fail(409, 'conflict', 'It changed meanwhile.')$$),
    jsonb_build_object('sqlstate', 'GX409', 'message', 'conflict', 'detail', 'It changed meanwhile.', 'hint', ''),
    'without context the hint is empty');
SELECT throws_ok(format($$SELECT backend.fail(%s, 'a_code', 'b')$$, s), ('GX' || s)::char(5), 'a_code', format('status %s is SQLSTATE GX%s', s, s))
  FROM unnest(ARRAY[400, 401, 429, 503]) AS s;
SELECT is(
    pg_temp.refused($$SELECT backend.fail(400, '100% {"x"}', E'a\nb %s')$$) ->> 'message', '100% {"x"}', 'no character of a code is taken for a format');

-- backend.refusal()
SELECT is((backend.refusal(403, 'sanctioned', 'Not now.')).status, 403, 'a refusal that is returned has the status');
SELECT is(
    (backend.refusal(403, 'sanctioned', 'Not now.', '{"sanction": "x"}')).body::jsonb,
    '{"code": "sanctioned", "message": "Not now.", "details": {"sanction": "x"}}', 'and says the same in its body');
SELECT is(
    (backend.refusal(400, 'a', 'b')).body::jsonb, '{"code": "a", "message": "b", "details": {}}', 'without context its details are empty');
SELECT is((backend.refusal(400, 'a', 'b')).location, NULL, 'it is nowhere');

-- Constraints.
SELECT is(pg_temp.violated(format('INSERT INTO backend.constraint_errors (constraint_name, status, code, message) VALUES %s', v)), c, d)
  FROM (VALUES
    ($$('a', 399, 'a', '-')$$, 'constraint_errors_status_is_a_refusal', 'a constraint never means a success'),
    ($$('a', 400, 'Not Snake', '-')$$, 'constraint_errors_code_is_snake_case', 'a code is in snake_case')
  ) AS t(v, c, d);

SELECT * FROM finish();
ROLLBACK;
