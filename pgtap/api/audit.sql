-- Test galaxy-backend:api/audit

BEGIN;
SELECT plan(27);

-- Attributes and privileges.
SELECT ARRAY['text', 'text', 'text', 'text', 'text', 'timestamp with time zone', 'timestamp with time zone', 'integer', 'text']::name[] AS arguments \gset
SELECT function_returns('api', 'audit_list', :'arguments', 'text', 'the list is text');
SELECT volatility_is('api', 'audit_list', :'arguments'::name[], 'stable', 'audit_list() is STABLE');
SELECT is_definer('api', 'audit_list', :'arguments'::name[], 'audit_list() has its owner''s rights');
SELECT function_privs_are('api', 'audit_list', :'arguments', 'backend_api', ARRAY['EXECUTE'], 'backend_api may execute it');
SELECT function_privs_are('api', 'audit_list', :'arguments', r, '{}'::name[], format('%s may not', r)) FROM unnest(ARRAY['backend_worker', 'backend_push']) AS r;

INSERT INTO backend.admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
INSERT INTO backend.audit_log (audit_id, admin, action, object_type, object_id, details, source_ip, created_at)
SELECT ('00000000-0000-7000-8000-00000000000' || i)::uuid, a, c, t, o, '{"n": 1}', '192.0.2.1', timestamptz '2026-01-01T00:00:00Z' + make_interval(hours => i)
  FROM (VALUES (1, 'root', 'game_cancel', 'game', 'g1'), (2, 'ann', 'game_cancel', 'game', 'g2'), (3, 'root', 'game_pause', 'game', 'g1'),
               (4, 'ann', 'administrator_enable', 'administrator', 'g1'), (5, 'root', 'game_cancel', 'game', 'g3')) AS v(i, a, c, t, o);

CREATE FUNCTION pg_temp.page(
    p_actor text DEFAULT NULL, p_action text DEFAULT NULL, p_object_type text DEFAULT NULL, p_object_id text DEFAULT NULL,
    p_since timestamptz DEFAULT NULL, p_until timestamptz DEFAULT NULL, p_limit integer DEFAULT 50, p_cursor text DEFAULT NULL
) RETURNS jsonb LANGUAGE plpgsql SET role = backend_api AS $$
BEGIN
    RETURN api.audit_list('root', p_actor, p_action, p_object_type, p_object_id, p_since, p_until, p_limit, p_cursor)::jsonb;
END;
$$;
CREATE FUNCTION pg_temp.found(p_page jsonb) RETURNS text LANGUAGE sql
RETURN (SELECT string_agg(right(i ->> 'audit_id', 1), '' ORDER BY n) FROM jsonb_array_elements(p_page -> 'items') WITH ORDINALITY AS t(i, n));

SELECT is(pg_temp.found(pg_temp.page()), '54321', 'an administrator sees all of it, newest first');
SELECT is(
    pg_temp.page() -> 'items' -> 4,
    '{"audit_id": "00000000-0000-7000-8000-000000000001", "admin": "root", "action": "game_cancel", "object_type": "game", "object_id": "g1",
      "details": {"n": 1}, "source_ip": "192.0.2.1", "request_id": null, "at": "2026-01-01T01:00:00.000000Z"}', 'with who, what, to what, from where and when');
SELECT is(pg_temp.found(pg_temp.page(p_actor => 'ann')), '42', 'or what one did');
SELECT is(pg_temp.found(pg_temp.page(p_action => 'game_cancel')), '521', 'or who did one thing');
SELECT is(pg_temp.found(pg_temp.page(p_object_type => 'administrator')), '4', 'or to things of a kind');
SELECT is(pg_temp.found(pg_temp.page(p_object_id => 'g1')), '431', 'or to one of them');
SELECT is(pg_temp.found(pg_temp.page(p_object_type => 'game', p_object_id => 'g1')), '31', 'or both');
SELECT is(pg_temp.found(pg_temp.page(p_since => '2026-01-01T03:00:00Z')), '543', 'from a moment on');
SELECT is(pg_temp.found(pg_temp.page(p_until => '2026-01-01T03:00:00Z')), '21', 'or before it');
SELECT is(pg_temp.found(pg_temp.page(p_since => '2026-01-01T03:00:00+01:00', p_until => '2026-01-01T04:00:00Z')), '32', 'or between two, wherever they are told');
SELECT is(pg_temp.found(pg_temp.page('root', 'game_cancel', 'game', 'g1', '2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z')), '1', 'all filters together');
SELECT is(pg_temp.found(pg_temp.page(p_actor => 'eve')), NULL, 'of nobody nothing');

-- Pages.
SELECT pg_temp.page(p_action => 'game_cancel', p_limit => 2) AS page1 \gset
SELECT is(pg_temp.found(:'page1'), '52', 'a page has so many');
SELECT is(pg_temp.found(pg_temp.page(p_action => 'game_cancel', p_limit => 2, p_cursor => :'page1'::jsonb ->> 'next_cursor')), '1', 'the next has the rest');
SELECT is(pg_temp.page(p_action => 'game_cancel', p_limit => 2, p_cursor => :'page1'::jsonb ->> 'next_cursor') -> 'next_cursor', 'null', 'and says so');
SELECT throws_ok(
    format('SELECT pg_temp.page(%s p_cursor => %L)', f, :'page1'::jsonb ->> 'next_cursor'), 'GX400', 'invalid_cursor', format('a cursor is of its list, not of one by %s', d))
  FROM (VALUES ('', 'nothing'), ('p_action => ''game_pause'',', 'another action'), ('p_action => ''game_cancel'', p_since => ''2026-01-01'',', 'time as well')) AS t(f, d);

-- Who may not.
SELECT throws_ok($$SELECT api.audit_list('nobody', NULL, NULL, NULL, NULL, NULL, NULL, 50, NULL)$$, 'GX401', 'unauthorized', 'nobody reads it');
UPDATE backend.admin_accounts SET disabled_at = backend.now();
SELECT throws_ok('SELECT pg_temp.page()', 'GX401', 'unauthorized', 'nor does one who is disabled');
SELECT is((SELECT count(*) FROM backend.audit_log), 5::bigint, 'and reading is not written down');

SELECT * FROM finish();
ROLLBACK;
