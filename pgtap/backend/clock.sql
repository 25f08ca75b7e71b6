-- Test galaxy-backend:backend/clock

BEGIN;
SELECT plan(36);
\ir ../helpers.psql
-- Before anything is counted for the whole service: tests that do that and move the clock go one after another.
SELECT FROM backend.clock FOR UPDATE \g /dev/null

-- Attributes.
SELECT has_table('backend', 'clock', 'the clock is a table');
SELECT columns_are('backend', 'clock', ARRAY['is_only', 'clock_offset', 'created_at'], 'it holds an offset');
SELECT col_type_is('backend', 'clock', 'clock_offset', 'interval', 'the offset is an interval');
SELECT col_not_null('backend', 'clock', 'clock_offset', 'there always is one');
SELECT results_eq($$SELECT clock_offset FROM backend.clock$$, $$VALUES ('0'::interval)$$, 'which is zero until somebody moves it');
SELECT function_returns('backend', 'now', '{}'::name[], 'timestamp with time zone', 'backend.now() is a time with its zone');
SELECT volatility_is('backend', 'now', '{}'::name[], 'stable', 'backend.now() stands still in a statement');
SELECT function_returns('backend', 'ts', ARRAY['timestamp with time zone'], 'text', 'backend.ts() makes text');
SELECT volatility_is('backend', 'ts', ARRAY['timestamp with time zone'], 'stable', 'backend.ts() is STABLE');
SELECT function_returns('backend', 'uuid_v7', '{}'::name[], 'uuid', 'backend.uuid_v7() makes a UUID');
SELECT volatility_is('backend', 'uuid_v7', '{}'::name[], 'volatile', 'backend.uuid_v7() is VOLATILE');
SELECT function_returns('backend', 'tg_row__touch', '{}'::name[], 'trigger', 'backend.tg_row__touch() is a trigger function');

-- Privileges: whoever could move the clock could outlive a block.
SET LOCAL ROLE backend_api;
SELECT throws_ok($$UPDATE backend.clock SET clock_offset = '1 day'$$, '42501', NULL, 'backend_api cannot move the clock');
SET LOCAL ROLE backend_worker;
SELECT throws_ok($$UPDATE backend.clock SET clock_offset = '1 day'$$, '42501', NULL, 'backend_worker cannot move the clock');
SET LOCAL ROLE backend_push;
SELECT throws_ok($$UPDATE backend.clock SET clock_offset = '1 day'$$, '42501', NULL, 'backend_push cannot move the clock');
RESET ROLE;

-- Constraints.
SELECT is(pg_temp.violated($$INSERT INTO backend.clock DEFAULT VALUES$$), 'clock_pkey', 'there is one clock');
SELECT is(pg_temp.violated($$INSERT INTO backend.clock (is_only) VALUES (false)$$), 'clock_has_one_row', 'and no other');

-- backend.now()
SELECT is(backend.now(), transaction_timestamp(), 'the time is that of the transaction');
UPDATE backend.clock SET clock_offset = '30 days';
SELECT is(backend.now(), transaction_timestamp() + interval '30 days', 'and moves with the offset');
SET LOCAL ROLE backend_owner;
SELECT lives_ok($$UPDATE backend.clock SET clock_offset = '-1 hour'$$, 'the owner moves the clock');
RESET ROLE;
SELECT is(backend.now(), transaction_timestamp() - interval '1 hour', 'back as well');
UPDATE backend.clock SET clock_offset = '0';

-- backend.ts()
SELECT is(backend.ts('2026-01-02T03:04:05.6+02'), '2026-01-02T01:04:05.600000Z', 'a time is written in UTC, with microseconds and Z');
SET LOCAL timezone = 'Asia/Kathmandu';
SELECT is(backend.ts('2026-01-02T03:04:05Z'), '2026-01-02T03:04:05.000000Z', 'whatever the zone of the session');
SET LOCAL datestyle = 'German, DMY';
SELECT is(backend.ts('2026-02-01T00:00:00Z'), '2026-02-01T00:00:00.000000Z', 'and its style of dates');
SELECT is(backend.ts(NULL), NULL, 'null is null');

-- backend.uuid_v7()
CREATE TEMPORARY TABLE ids AS
SELECT i, backend.uuid_v7() AS id, clock_timestamp() AS made_at, pg_sleep(0.00001)::text FROM generate_series(1, 300) AS i;
CREATE FUNCTION pg_temp.made_at(p_id uuid) RETURNS timestamptz LANGUAGE sql
RETURN to_timestamp(('x' || left(replace(p_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0);
SELECT is_empty(
    $$SELECT id FROM ids WHERE id::text !~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'$$,
    'an id is of version 7 and of RFC 9562''s variant');
SELECT is((SELECT count(DISTINCT id) FROM ids), 300::bigint, 'no two are the same');
SELECT results_eq('SELECT i FROM ids ORDER BY id', 'SELECT i FROM ids ORDER BY i', 'they sort by the moment they were made at');
SELECT is_empty(
    $$SELECT id FROM ids WHERE abs(extract(epoch FROM pg_temp.made_at(id) - made_at)) > 0.1$$, 'which they hold, to the millisecond');
SELECT cmp_ok(
    (SELECT count(DISTINCT right(id::text, 12)) FROM ids), '=', 300::bigint, 'the rest is random');
UPDATE backend.clock SET clock_offset = '-400 days';
SELECT cmp_ok(
    abs(extract(epoch FROM pg_temp.made_at(backend.uuid_v7()) - (clock_timestamp() - interval '400 days'))), '<', 0.1,
    'an id follows the platform''s clock');

-- The touch trigger.
CREATE TEMPORARY TABLE things (name text, updated_at timestamptz NOT NULL DEFAULT backend.now());
CREATE TRIGGER touch BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();
INSERT INTO things VALUES ('a'), ('b');
UPDATE backend.clock SET clock_offset = '1 day';
UPDATE things SET name = 'c' WHERE name = 'a';
SELECT is(
    (SELECT updated_at FROM things WHERE name = 'c'), transaction_timestamp() + interval '1 day', 'a row that changes is touched');
SELECT is(
    (SELECT updated_at FROM things WHERE name = 'b'), transaction_timestamp() - interval '400 days', 'a row that does not change is not');
UPDATE things SET updated_at = '2000-01-01Z' WHERE name = 'b';
SELECT is(
    (SELECT updated_at FROM things WHERE name = 'b'), transaction_timestamp() + interval '1 day', 'nobody sets updated_at by hand');
INSERT INTO things VALUES ('d', '2000-01-01Z');
SELECT is((SELECT updated_at FROM things WHERE name = 'd'), '2000-01-01Z', 'a new row keeps what it comes with');
SELECT col_default_is('backend', 'clock', 'created_at', 'now()', 'the clock''s own row is from before there was a clock');

SELECT * FROM finish();
ROLLBACK;
