-- Test galaxy-backend:backend/pages

BEGIN;
SELECT plan(48);
\ir ../helpers.psql

-- Attributes.
SELECT function_returns('backend', 'cursor_make', ARRAY['text', 'text'], 'text', 'a cursor is text');
SELECT function_returns('backend', 'cursor_read', ARRAY['text', 'text'], 'text', 'and so is the key in it');
SELECT function_returns('backend', 'cursor_read_id', ARRAY['text', 'text'], 'uuid', 'or an id, where the list is ordered by ids');
SELECT volatility_is('backend', f, ARRAY['text', 'text'], 'stable', format('%s() changes nothing', f)) FROM unnest(ARRAY['cursor_read', 'cursor_read_id']) AS f;
SELECT function_returns('backend', 'page', ARRAY['text', 'jsonb[]', 'text[]', 'integer'], 'text', 'a page is JSON as text');
SELECT volatility_is('backend', 'page', ARRAY['text', 'jsonb[]', 'text[]', 'integer'], 'stable', 'making a page changes nothing');
SET LOCAL ROLE backend_api;
SELECT throws_ok($$SELECT backend.cursor_make('a', 'b')$$, '42501', NULL, 'backend_api cannot make cursors');
RESET ROLE;

-- Cursors.
SELECT is(backend.cursor_read('list', backend.cursor_make('list', k)), k, format('the key %L comes back', k))
  FROM unnest(ARRAY['a', 'Ann.B-c_d', '0197f3a2-0000-7000-8000-000000000000', ' ', '{"a":[1]}', '2026-01-01T00:00:00.000000Z']) AS k;
SELECT is(backend.cursor_read('list', backend.cursor_make('list', repeat('k', 500))), repeat('k', 500), 'a long key comes back');
SELECT is(backend.cursor_read('list', NULL), NULL, 'no cursor is no key: the first page');
SELECT matches(backend.cursor_make('list', 'key'), '^[0-9a-f]+$', 'a cursor needs no escaping in a URL');
SELECT unalike(backend.cursor_make('list', 'key'), '%key%', 'nor does it show its key at a glance');

SELECT throws_ok(format('SELECT backend.cursor_read(%L, %L)', 'list', c), 'GX400', 'invalid_cursor', format('%s is refused', d))
  FROM (VALUES
    (backend.cursor_make('other', 'key'), 'a cursor of another list'),
    (backend.cursor_make('list:a', 'key'), 'a cursor of the same list with another filter'),
    ('', 'nothing'),
    ('key', 'a bare key'),
    (encode('key', 'hex'), 'a key in hexadecimal'),
    (left(backend.cursor_make('list', 'key'), -1), 'half a character'),
    (left(backend.cursor_make('list', 'key'), -2), 'a cursor cut short'),
    (backend.cursor_make('list', 'key') || '30', 'a cursor with more'),
    (upper(backend.cursor_make('list', 'key/')), 'a cursor in upper case'),
    (' ' || backend.cursor_make('list', 'key'), 'a cursor after a space'),
    ('00', 'a zero byte'),
    ('c3a9', 'a letter beyond ASCII'),
    ('ff', 'no UTF-8'),
    (backend.cursor_make('list', repeat('k', 600)), 'what is far too long'),
    (E'\u202e', 'what is no hexadecimal')
  ) AS t(c, d);

-- Cursors of lists by id: whoever knows how a cursor is made can make one around anything.
SELECT is(backend.cursor_read_id('list', backend.cursor_make('list', i)), i::uuid, format('the id %L comes back', i))
  FROM unnest(ARRAY['0197f3a2-0000-7000-8000-000000000000', NULL]) AS i;
SELECT throws_ok(
    format('SELECT backend.cursor_read_id(%L, %L)', 'list', backend.cursor_make('list', k)), 'GX400', 'invalid_cursor', format('%s is no id', to_json(k)))
  FROM unnest(ARRAY['x', '', '0197f3a2000070008000000000000000', '0197F3A2-0000-7000-8000-000000000000', '0197f3a2-0000-7000-8000-00000000000x']) AS k;
SELECT throws_ok(
    format('SELECT backend.cursor_read_id(%L, %L)', 'list', backend.cursor_make('other', gen_random_uuid()::text)), 'GX400', 'invalid_cursor',
    'an id of another list is refused');

-- Pages.
CREATE FUNCTION pg_temp.page(p_count integer, p_limit integer) RETURNS jsonb LANGUAGE sql
RETURN backend.page(
    'list',
    (SELECT array_agg(jsonb_build_object('n', i) ORDER BY i) FROM generate_series(1, p_count) AS i),
    (SELECT array_agg(i::text ORDER BY i) FROM generate_series(1, p_count) AS i),
    p_limit)::jsonb;
SELECT is(pg_temp.page(0, 2), '{"items": [], "next_cursor": null}', 'a page of nothing is the last one');
SELECT is(pg_temp.page(2, 2), '{"items": [{"n": 1}, {"n": 2}], "next_cursor": null}', 'a page that is just full is the last one');
SELECT is(pg_temp.page(3, 2) -> 'items', '[{"n": 1}, {"n": 2}]', 'what is too much is not on the page');
SELECT is(backend.cursor_read('list', pg_temp.page(3, 2) ->> 'next_cursor'), '2', 'its cursor holds the last key that is on it');
SELECT is(pg_temp.page(1, 2), '{"items": [{"n": 1}], "next_cursor": null}', 'a page that is not full is the last one');
SELECT is(
    backend.page('list', ARRAY['{}']::jsonb[], ARRAY['k'], 1)::text, '{"items" : [{}], "next_cursor" : null}',
    'the members of a page keep their order');
SELECT is(
    pg_temp.refused($$SELECT backend.cursor_read('list', 'x')$$),
    jsonb_build_object('sqlstate', 'GX400', 'message', 'invalid_cursor', 'detail', 'The cursor is not one of this list.', 'hint', ''),
    'a refusal says so');

SELECT * FROM finish();
ROLLBACK;
