-- Test galaxy-backend:api/engine_versions

BEGIN;
SELECT plan(56);
\ir ../helpers.psql

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[], returns text, volatility text);
INSERT INTO functions VALUES
    ('engine_version_list', ARRAY['text', 'integer', 'text'], 'text', 'stable'), ('engine_version_create', ARRAY['text', 'jsonb'], 'api.reply', 'volatile'),
    ('engine_version_update', ARRAY['text', 'text', 'jsonb'], 'text', 'volatile'), ('engine_version_disable', ARRAY['text', 'text'], 'text', 'volatile');
SELECT function_returns('api', name, arguments, returns, format('%s() answers %s', name, returns)) FROM functions;
SELECT volatility_is('api', name, arguments, volatility, format('%s() is %s', name, upper(volatility))) FROM functions;
SELECT is_definer('api', name, arguments, format('%s() has its owner''s rights', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, 'backend_api', ARRAY['EXECUTE'], format('backend_api may execute %s()', name)) FROM functions;
SELECT function_privs_are('api', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_worker', 'backend_push']) AS r;

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
SET LOCAL backend.source_ip = '192.0.2.1';
SET LOCAL ROLE backend_api;

-- Creating.
SELECT (r).status, (r).body, (r).location FROM (SELECT api.engine_version_create('root', '{"version": "1.9.0", "image_ref": "e:9"}') AS r OFFSET 0) AS t \gset
SELECT is(:status, 201, 'a version is created');
SELECT is(:'location'::text, '/api/v1/admin/engine-versions/1.9.0', 'and is found there');
SELECT is(:'body'::jsonb - 'created_at', '{"version": "1.9.0", "image_ref": "e:9", "enabled": true}', 'enabled');
SELECT is(
    pg_temp.violated($$SELECT api.engine_version_create('root', '{"version": "1.9.0", "image_ref": "e:9"}')$$), 'engine_versions_pkey', 'once');
SELECT is(
    pg_temp.violated($$SELECT api.engine_version_create('root', '{"version": "1.9", "image_ref": "e:9"}')$$), 'engine_versions_version_is_semantic', 'a version is one');
SELECT (api.engine_version_create('root', jsonb_build_object('version', v, 'image_ref', 'e'))).status FROM unnest(ARRAY['1.10.0', '1.10.0-rc.1', '2.0.0', '0.1.0']) AS v \g /dev/null

-- The list.
CREATE FUNCTION pg_temp.versions(p_page text) RETURNS text[]
LANGUAGE sql
RETURN (SELECT coalesce(array_agg(i ->> 'version' ORDER BY n), '{}') FROM jsonb_array_elements(p_page::jsonb -> 'items') WITH ORDINALITY AS t(i, n));
SELECT is(pg_temp.versions(api.engine_version_list('root', 50, NULL)), ARRAY['2.0.0', '1.10.0', '1.10.0-rc.1', '1.9.0', '0.1.0'], 'versions are listed newest first');
SELECT api.engine_version_list('root', 2, NULL) AS page1 \gset
SELECT api.engine_version_list('root', 2, :'page1'::jsonb ->> 'next_cursor') AS page2 \gset
SELECT api.engine_version_list('root', 2, :'page2'::jsonb ->> 'next_cursor') AS page3 \gset
SELECT is(pg_temp.versions(:'page1') || pg_temp.versions(:'page2') || pg_temp.versions(:'page3'), ARRAY['2.0.0', '1.10.0', '1.10.0-rc.1', '1.9.0', '0.1.0'], 'in pages');
SELECT is(:'page3'::jsonb -> 'next_cursor', 'null', 'of which the last says that it is');
SELECT throws_ok($$SELECT api.engine_version_list('root', 2, 'x')$$, 'GX400', 'invalid_cursor', 'a cursor is one of this list');

-- Changing.
SELECT is(api.engine_version_update('root', '1.9.0', '{"image_ref": "e:mended"}')::jsonb ->> 'image_ref', 'e:mended', 'the image of a version changes');
SELECT is(api.engine_version_update('root', '1.9.0', '{"enabled": false}')::jsonb - 'created_at', '{"version": "1.9.0", "image_ref": "e:mended", "enabled": false}', 'it is disabled');
SELECT is(api.engine_version_update('root', '1.9.0', '{"enabled": true}')::jsonb ->> 'enabled', 'true', 'and enabled again');
SELECT is(api.engine_version_disable('root', '1.9.0')::jsonb ->> 'enabled', 'false', 'or disabled in one word');
SELECT is(api.engine_version_disable('root', '1.9.0')::jsonb ->> 'enabled', 'false', 'twice changes nothing');
SELECT throws_ok($$SELECT api.engine_version_update('root', '9.9.9', '{"enabled": false}')$$, 'GX404', 'engine_version_not_found', 'what is not there does not change');
SELECT throws_ok($$SELECT api.engine_version_disable('root', '9.9.9')$$, 'GX404', 'engine_version_not_found', 'nor is disabled');
SELECT is(pg_temp.violated($$SELECT api.engine_version_update('root', '1.9.0', '{"image_ref": " "}')$$), 'engine_versions_image_ref_is_plain', 'an image is one');
RESET ROLE;
SELECT is(backend.engine_version_newest(), '2.0.0', 'the newest is offered');

-- Every command is written down, no refusal is.
SELECT bag_eq(
    $$SELECT admin, action, object_type, details, host(source_ip), count(*) FROM backend.audit_log WHERE object_id = '1.9.0' GROUP BY 1, 2, 3, 4, 5$$,
    $$VALUES ('root', 'engine_version_create', 'engine_version', '{"version": "1.9.0", "image_ref": "e:9"}'::jsonb, '192.0.2.1', 1::bigint),
             ('root', 'engine_version_update', 'engine_version', '{"image_ref": "e:mended"}', '192.0.2.1', 1),
             ('root', 'engine_version_update', 'engine_version', '{"enabled": false}', '192.0.2.1', 1),
             ('root', 'engine_version_update', 'engine_version', '{"enabled": true}', '192.0.2.1', 1),
             ('root', 'engine_version_disable', 'engine_version', NULL, '192.0.2.1', 2)$$, 'what an administrator did is written down');
SELECT is((SELECT count(*) FROM backend.audit_log), 10::bigint, 'and nothing else');

-- Those who may not.
CREATE TEMPORARY TABLE calls (name text, call text);
INSERT INTO calls VALUES
    ('engine_version_list', 'SELECT api.engine_version_list(%L, 50, NULL)'), ('engine_version_create', 'SELECT api.engine_version_create(%L, ''{"version": "3.0.0", "image_ref": "e"}'')'),
    ('engine_version_update', 'SELECT api.engine_version_update(%L, ''1.9.0'', ''{"enabled": true}'')'), ('engine_version_disable', 'SELECT api.engine_version_disable(%L, ''2.0.0'')');
SELECT throws_ok(format(call, a), 'GX401', 'unauthorized', format('%s is not for %s', name, coalesce(a, 'nobody'))) FROM calls, unnest(ARRAY['mallory', NULL]) AS a;
UPDATE backend.admin_accounts SET disabled_at = backend.now();
SELECT throws_ok(format(call, 'root'), 'GX401', 'unauthorized', format('%s is not for an administrator who is disabled', name)) FROM calls;

SELECT * FROM finish();
ROLLBACK;
