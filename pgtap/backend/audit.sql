-- Test galaxy-backend:backend/audit

BEGIN;
SELECT plan(42);

-- Attributes.
SELECT has_table('backend', 'audit_log', 'there is audit_log');
SELECT columns_are('backend', 'audit_log',
    ARRAY['audit_id', 'admin', 'action', 'object_type', 'object_id', 'details', 'source_ip', 'request_id', 'created_at'],
    'it says who did what to what, when and from where');
SELECT col_is_pk('backend', 'audit_log', 'audit_id', 'an entry has an id');
SELECT col_not_null('backend', 'audit_log', c, format('%s is always told', c))
  FROM unnest(ARRAY['admin', 'action', 'object_type', 'object_id', 'created_at']) AS c;
SELECT has_index('backend', 'audit_log', 'audit_log_by_admin', ARRAY['admin', 'audit_id'], 'what somebody did is found in order');
SELECT has_index('backend', 'audit_log', 'audit_log_by_object', ARRAY['object_type', 'object_id', 'audit_id'], 'what was done to something too');
SELECT has_index('backend', 'audit_log', i, c::name[], format('there is an index by %s', c))
  FROM (VALUES ('audit_log_by_action', '{action,audit_id}'), ('audit_log_by_object_type', '{object_type,audit_id}'),
               ('audit_log_by_object_id', '{object_id,audit_id}'), ('audit_log_by_time', '{created_at}')) AS t(i, c);
SELECT volatility_is('backend', 'audit_json', 'stable', 'audit_json() is STABLE');
SELECT has_trigger('backend', 'audit_log', 'append_only', 'a trigger holds it');
SELECT function_returns('backend', 'tg_audit_log__append_only', '{}'::name[], 'trigger', 'with a function of its own');
SELECT volatility_is('backend', 'audit', ARRAY['text', 'text', 'text', 'text', 'jsonb'], 'volatile', 'audit() is VOLATILE');
SELECT isnt_definer('backend', 'audit', ARRAY['text', 'text', 'text', 'text', 'jsonb'], 'audit() has no rights of its own');

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM backend.audit_log', '42501', NULL, 'backend_api does not read it');
SELECT throws_ok('INSERT INTO backend.audit_log (admin, action, object_type, object_id) VALUES (''x'', ''x'', ''x'', ''x'')', '42501', NULL, 'nor write it by hand');
SELECT throws_ok($$SELECT backend.audit('root', 'x', 'x', 'x', NULL)$$, '42501', NULL, 'nor through the helper');
RESET ROLE;

-- What is written.
SET LOCAL backend.source_ip = '2001:db8::1';
SET LOCAL backend.request_id = 'request-1';
SELECT backend.audit('root', 'engine_version_create', 'engine_version', '1.0.0', '{"image_ref": "a"}') \g /dev/null
SELECT results_eq(
    'SELECT admin, action, object_type, object_id, details, source_ip, request_id, created_at FROM backend.audit_log',
    $$VALUES ('root', 'engine_version_create', 'engine_version', '1.0.0', '{"image_ref": "a"}'::jsonb, '2001:db8::1'::inet, 'request-1', backend.now())$$,
    'a command is written down with its cause');
SELECT is(
    (SELECT backend.audit_json(l) - 'audit_id' FROM backend.audit_log AS l),
    jsonb_build_object('admin', 'root', 'action', 'engine_version_create', 'object_type', 'engine_version', 'object_id', '1.0.0',
                       'details', '{"image_ref": "a"}'::jsonb, 'source_ip', '2001:db8::1', 'request_id', 'request-1', 'at', backend.ts(backend.now())),
    'and shown as the contract says');
SET LOCAL backend.source_ip = '';
SET LOCAL backend.request_id = '';
SELECT backend.audit('root', 'game_cancel', 'game', 'x', NULL) \g /dev/null
SELECT results_eq(
    $$SELECT details, source_ip, request_id FROM backend.audit_log WHERE action = 'game_cancel'$$,
    'VALUES (NULL::jsonb, NULL::inet, NULL)', 'what is not known is not made up');

-- Append-only, for everybody.
CREATE TEMPORARY TABLE attempts (statement text, what text);
INSERT INTO attempts VALUES
    ('UPDATE backend.audit_log SET admin = ''other''', 'changed'), ('UPDATE backend.audit_log SET admin = ''other'' WHERE false', 'changed, not even nowhere'),
    ('DELETE FROM backend.audit_log', 'deleted'), ('DELETE FROM backend.audit_log WHERE false', 'deleted, not even nowhere'),
    ('TRUNCATE backend.audit_log', 'truncated'), ('TRUNCATE backend.audit_log CASCADE', 'truncated with what hangs on it'),
    ($$INSERT INTO backend.audit_log (audit_id, admin, action, object_type, object_id) SELECT audit_id, 'x', 'x', 'x', 'x' FROM backend.audit_log LIMIT 1
       ON CONFLICT (audit_id) DO UPDATE SET admin = 'other'$$, 'changed by an insertion'),
    ('MERGE INTO backend.audit_log AS a USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE', 'merged away');
SELECT throws_ok(statement, '42501', 'the audit log is append-only', format('nothing is %s by a superuser', what)) FROM attempts;
GRANT SELECT ON attempts TO backend_owner;
SET LOCAL ROLE backend_owner;
SELECT throws_ok(statement, '42501', 'the audit log is append-only', format('nothing is %s by the owner', what)) FROM attempts;
RESET ROLE;
SELECT is((SELECT array_agg(admin ORDER BY audit_id) FROM backend.audit_log), ARRAY['root', 'root'], 'what was written stays');

SELECT * FROM finish();
ROLLBACK;
