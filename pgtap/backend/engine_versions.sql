-- Test galaxy-backend:backend/engine_versions

BEGIN;
SELECT plan(41);
\ir ../helpers.psql

-- Attributes.
SELECT has_table('backend', 'engine_versions', 'there is engine_versions');
SELECT columns_are('backend', 'engine_versions', ARRAY['version', 'image_ref', 'enabled', 'created_at', 'updated_at'], 'a version has its image');
SELECT col_is_pk('backend', 'engine_versions', 'version', 'a version is registered once');
SELECT col_not_null('backend', 'engine_versions', c, format('%s is always told', c)) FROM unnest(ARRAY['version', 'image_ref', 'enabled']) AS c;
SELECT col_default_is('backend', 'engine_versions', 'enabled', 'true', 'a new version can be used');
SELECT volatility_is('backend', f, v, format('%s() is %s', f, upper(v)))
  FROM (VALUES ('version_key', 'immutable'), ('version_series', 'immutable'), ('engine_version_newest', 'stable'), ('engine_version_json', 'stable')) AS t(f, v);

-- Privileges.
SET LOCAL ROLE backend_api;
SELECT throws_ok('SELECT FROM backend.engine_versions', '42501', NULL, 'backend_api sees versions through its door only');
SELECT throws_ok('DELETE FROM backend.engine_versions', '42501', NULL, 'and deletes none');
SELECT throws_ok('SELECT backend.engine_version_newest()', '42501', NULL, 'nor asks past it');
RESET ROLE;

-- Constraints.
SELECT is(pg_temp.violated(format('INSERT INTO backend.engine_versions (version, image_ref) VALUES (%L, %L)', v, i)), c, d)
  FROM (VALUES
    ('0.0.1', 'engine', 'nothing', 'a semantic version'),
    ('10.20.30-rc.1', 'registry.example.org:5000/galaxy/engine@sha256:00', 'nothing', 'with a pre-release, and an image with all its parts'),
    ('0.0.1', 'other', 'engine_versions_pkey', 'a version is registered once'),
    ('1.0', 'engine', 'engine_versions_version_is_semantic', 'a version has three numbers'),
    ('1.0.0.0', 'engine', 'engine_versions_version_is_semantic', 'not four'),
    ('v1.0.0', 'engine', 'engine_versions_version_is_semantic', 'and no letter before them'),
    ('01.0.0', 'engine', 'engine_versions_version_is_semantic', 'nor a zero'),
    ('1.0.0-', 'engine', 'engine_versions_version_is_semantic', 'a pre-release is something'),
    ('1.0.0-a..b', 'engine', 'engine_versions_version_is_semantic', 'in all its parts'),
    ('1.0.0-rc.01', 'engine', 'engine_versions_version_is_semantic', 'nor a number of it with a zero before'),
    ('1.0.0+build', 'engine', 'engine_versions_version_is_semantic', 'what a build is called does not count'),
    ('1.0.' || repeat('1', 10), 'engine', 'engine_versions_version_is_semantic', 'a number has at most nine digits'),
    ('1.0.0-' || repeat('a', 59), 'engine', 'engine_versions_version_is_semantic', 'a version is not too long'),
    (E'1.0.0\n', 'engine', 'engine_versions_version_is_semantic', 'and is one line'),
    ('2.0.0', '', 'engine_versions_image_ref_is_plain', 'an image is something'),
    ('2.0.0', '-v', 'engine_versions_image_ref_is_plain', 'which nothing takes for an option'),
    ('2.0.0', 'a b', 'engine_versions_image_ref_is_plain', 'or for two words'),
    ('2.0.0', E'a\n', 'engine_versions_image_ref_is_plain', 'or for two lines'),
    ('2.0.0', repeat('a', 256), 'engine_versions_image_ref_is_plain', 'and is not too long')
  ) AS t(v, i, c, d);
SELECT results_eq(
    $$SELECT status, code FROM backend.constraint_errors WHERE constraint_name = 'engine_versions_pkey'$$,
    $$VALUES (409, 'engine_version_exists')$$, 'who registers a version again is told so');
DELETE FROM backend.engine_versions;

-- Order.
SELECT is(
    (SELECT array_agg(v ORDER BY backend.version_key(v) COLLATE "C") FROM unnest(ARRAY['1.0.0', '1.0.0-alpha', '1.0.0-rc.10', '1.0.0-rc.9', '1.0.0-alpha-1', '1.0.0-beta.11', '1.0.0-beta.2', '1.0.0-alpha.beta', '1.0.0-1', '10.0.0', '2.0.0', '1.10.0', '1.2.0', '1.0.0-beta',
                                                                                 '1.0.0-alpha.1', '1.0.10', '1.0.9', '1.0.0-rc-1']) AS v),
    ARRAY['1.0.0-1', '1.0.0-alpha', '1.0.0-alpha.1', '1.0.0-alpha.beta', '1.0.0-alpha-1', '1.0.0-beta', '1.0.0-beta.2', '1.0.0-beta.11', '1.0.0-rc.9', '1.0.0-rc.10', '1.0.0-rc-1', '1.0.0', '1.0.9', '1.0.10', '1.2.0', '1.10.0', '2.0.0', '10.0.0'],
    'versions sort by their numbers, a pre-release before its release');
SELECT is(backend.engine_version_newest(), NULL, 'where there is none, none is the newest');
INSERT INTO backend.engine_versions (version, image_ref) VALUES ('1.9.0', 'e'), ('1.10.0', 'e'), ('1.10.0-rc.1', 'e'), ('2.0.0', 'e');
UPDATE backend.engine_versions SET enabled = false WHERE version = '2.0.0';
SELECT is(backend.engine_version_newest(), '1.10.0', 'the newest is the newest that is enabled');
UPDATE backend.engine_versions SET enabled = false WHERE version = '1.10.0';
SELECT is(backend.engine_version_newest(), '1.9.0', 'a pre-release has to be asked for');
SELECT is(backend.version_series(v), '1.2', format('%s is of 1.2', v)) FROM unnest(ARRAY['1.2.0', '1.2.30-rc.1']) AS v;
SELECT is(
    (SELECT backend.engine_version_json(v) FROM backend.engine_versions AS v WHERE version = '2.0.0'),
    jsonb_build_object('version', '2.0.0', 'image_ref', 'e', 'enabled', false, 'created_at', backend.ts(backend.now())),
    'a version is shown as the contract says');

SELECT * FROM finish();
ROLLBACK;
